"""The images of `benchmarks.growth` are what the pipeline reads, and its tables say what was measured."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import growth_report, synthetic
from ddpm.images.splits import load_split
from ddpm.ingest.folders import read_folder
from ddpm.ingest.mnist import read_mnist
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import read_yaml

COUNT = 1000
IMAGES = {"made_of": "pictures", "shape": "1x28x28", "images": 1000, "what": "preprocess"}


def row(**changed: object) -> dict[str, object]:
    return {**IMAGES, "seconds": 2.5, "cpu": 2.25, "peak": 400, "own": 300, "disk": 1, **changed}


def size(**changed: object) -> dict[str, object]:
    return {"side": 28, "channels": 1, "batch": 64, "width": 0, "images_per_cpu_second": 500, "peak": 600, **changed}


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64)])
def test_images_differ_and_are_the_same_in_every_run(shape: tuple[int, int, int]) -> None:
    images = synthetic.levels(COUNT, shape, 0, 0)
    assert images.shape == (COUNT, *shape)
    assert len({image.tobytes() for image in images}) == COUNT
    assert np.array_equal(images, synthetic.levels(COUNT, shape, 0, 0))
    assert not np.array_equal(images, synthetic.levels(COUNT, shape, 1, 0))
    assert images.reshape(COUNT, -1).mean(1).std() > 20  # dark and bright ones: twins are looked for among like means


def test_parts_are_all_images_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "PART", 300)
    parts = [*synthetic.parts(COUNT, (1, 28, 28))]
    assert [len(part) for part in parts] == [300, 300, 300, 100]
    assert len({image.tobytes() for part in parts for image in part}) == COUNT


def test_pictures_are_a_folder_of_classes(tmp_path: Path) -> None:
    synthetic.write_pictures(tmp_path / "pictures", 50, (3, 64, 64))
    folder = read_folder(tmp_path / "pictures")
    assert folder.classes == tuple("0123456789")
    assert [picture.label for picture in folder.train] == [index % 10 for index in range(50)]


def test_archives_unpack_to_the_pictures(tmp_path: Path) -> None:
    synthetic.write_pictures(tmp_path / "pictures", 20, (1, 28, 28))
    synthetic.write_archives(tmp_path / "pictures", tmp_path / "archives")
    (tmp_path / "unpacked").mkdir()
    archives = sorted((tmp_path / "archives").iterdir())
    assert [path.name for path in archives] == [f"{label}.tar" for label in range(10)]
    for path in archives:
        subprocess.run(["tar", "-xf", path, "-C", tmp_path / "unpacked"], check=True)
    unpacked, before = (sorted((tmp_path / name).rglob("*.png")) for name in ("unpacked", "pictures"))
    assert [path.read_bytes() for path in unpacked] == [path.read_bytes() for path in before]


def test_mnist_files_are_read_as_such(tmp_path: Path) -> None:
    synthetic.write_mnist_files(tmp_path / "files", 900, 100)
    folder = read_mnist(tmp_path / "files")
    assert (len(folder.train), len(folder.test or [])) == (900, 100)
    assert np.array_equal(folder.train[7].source, synthetic.levels(900, (1, 28, 28), 0, 0)[7, 0])
    assert folder.train[13].label == 3


def test_arrays_are_those_of_preprocess(tmp_path: Path) -> None:
    synthetic.write_arrays(tmp_path / "processed", COUNT, (3, 32, 32))
    train, test = (load_split(tmp_path / f"processed/{name}.safetensors") for name in ("train", "test"))
    assert train.split.images.shape == (900, 3, 32, 32)
    assert train.test_counts == (10,) * 10 == tuple(test.split.labels.bincount().tolist())
    assert np.array_equal(train.split.images.numpy(), synthetic.levels(900, (3, 32, 32), 0, 0))


def test_params_of_a_workspace_are_changed_in_their_sections(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("data: {set: x, image_size: 3}\nsample: {gallery: {count: 64, seed: 0}}\n")
    synthetic.set_params(tmp_path, {"data.image_size": [28, 28], "sample.gallery.count": 8})
    assert read_yaml(tmp_path / "params.yaml") == {
        "data": {"set": "x", "image_size": [28, 28]},
        "sample": {"gallery": {"count": 8, "seed": 0}},
    }


def test_disk_counts_what_is_linked_twice_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1" * (3 << 20))
    alone = synthetic.disk(tmp_path)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    assert synthetic.disk(tmp_path) == alone
    assert 3 <= alone < 3.1


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_own_memory_counts_children_and_no_mapped_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(64 << 20))
    script = f"""if True:
        import mmap, sys
        held = b"1" * (100 << 20)
        file = open({str(tmp_path / "file")!r})
        mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
        sum(mapped[::4096])
        print("ready", flush=True)
        sys.stdin.read()"""
    before = synthetic.anonymous(os.getpid())
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        own = synthetic.anonymous(child.pid)
        assert 100 << 20 <= own < 130 << 20
        assert synthetic.anonymous(os.getpid()) >= own + before * 0.9
        child.communicate()
    assert synthetic.anonymous(child.pid) == 0


def test_a_command_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^false: failed"):
        synthetic.measured(["false"], tmp_path)


def test_a_row_takes_the_place_of_one_of_the_same_setting(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    cost = {"seconds": 2.5, "cpu": 2.25, "peak": 400, "own": 300, "disk": 1}
    for setting in (IMAGES, IMAGES | {"images": 2000}):
        growth_report.write_row(path, setting, cost)
    growth_report.write_row(path, IMAGES, cost | {"seconds": 3.25})
    assert path.read_text() == (
        "made_of,shape,images,what,seconds,cpu,peak,own,disk\n"
        "pictures,1x28x28,1000,preprocess,3.25,2.25,400,300,1\n"
        "pictures,1x28x28,2000,preprocess,2.5,2.25,400,300,1\n"
    )


def test_full_at_follows_the_last_two_points() -> None:
    assert growth_report.full_at([(1000, 7), (300, 30), (100, 10)], 100) == math.inf  # less and less
    assert growth_report.full_at([(10, 500), (100, 100), (200, 200)], 1000) == 1000
    assert growth_report.full_at([(1, 5), (2, 5)], 1000) == math.inf


def test_the_table_of_images_tells_where_memory_is_full() -> None:
    rows = [row(), row(images=10_000, cpu=20, own=1200), row(what="dvc add", cpu=1)]
    rows += [row(what="evaluate", images=10_000, made_of="arrays"), row(what="evaluate")]
    lines = [*growth_report.images_tables(rows)]
    assert lines[1:] == [
        "|  | 1,000 | 10,000 | 24 GiB at |",
        "| --- | --- | --- | --- |",
        "| preprocess, pictures | 2.25, 300 | 20, 1,200 | 2.4e+05 |",  # a tenth of a megabyte each
        "| dvc add, pictures | 1, 300 |  |  |",
        "| evaluate | 2.25, 300 | 2.25, 300 |  |",  # whatever it began with; and it does not grow
    ]


def test_the_table_of_processes_has_steps() -> None:
    rows = [{"shape": "1x28x28", "processes": 2, "threads": 2, **row(what=what)} for what in ("train", "a step of 64")]
    assert [*growth_report.processes_table(rows)][3:] == ["| a step of 64, 1x28x28 | 2 | 2 | 2.5 | 2.25 | 300 | 400 |"]


def test_the_table_of_sizes_tells_the_memory_of_an_image() -> None:
    rows = [size(), size(batch=16, peak=120), size(width=32, peak=700), size(batch=512, peak=5000)]
    lines = [*growth_report.sizes_tables(rows)]
    assert lines[3] == "| 28 x 28, grey | 500 | 10.00 | 2,462 | 7,633 | 51.0 million |"
    assert lines[7:] == [
        "| batch | 16 | 500 | 120 |",
        "| batch | 64 | 500 | 600 |",
        "| batch | 512 | 500 | 5000 |",
        "| width | 32 | 500 | 700 |",
    ]


def test_the_plot_has_both(tmp_path: Path) -> None:
    for each in (row(), row(images=10_000, own=900)):
        growth_report.write_row(tmp_path / "images.csv", {key: each[key] for key in IMAGES}, each)
    for batch in (16, 64):
        each = size(batch=batch, peak=100 + batch)
        growth_report.write_row(tmp_path / "sizes.csv", {"batch": batch}, each)
    growth_report.report(tmp_path)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
