from pathlib import Path

import pytest

from ddpm.pipeline.params import Section, load_params
from scripts.check_params import AllParams
from tests.pipeline.test_params_values import TEXT, complaint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "the whole file: ", id="empty"),
        pytest.param(b"# nothing but this\n", "the whole file: ", id="a comment"),
        pytest.param(b"- train\n- sample\n", "the whole file: ", id="a list"),
        pytest.param(b"train\n", "the whole file: ", id="a word"),
        pytest.param(b"train: [1\n", "not valid YAML: ", id="an open bracket"),
        pytest.param(b"train:\n\tepochs: 1\n", "not valid YAML: ", id="a tab"),
        pytest.param(b"train: \xff\n", "not valid YAML: ", id="not UTF-8"),
        pytest.param(b"train: !!python/object:os.system x\n", "not valid YAML: ", id="a Python object"),
        pytest.param(b"---\na: 1\n---\nb: 2\n", "not valid YAML: ", id="two documents"),
        pytest.param(b"train: {}\nsample: {}\ntrain: {}\n", 'found duplicate key "train"', id="section twice"),
        pytest.param(
            TEXT.replace("  lr_decay:", "  lr: 0.1\n  lr_decay:", 1).encode(),
            'found duplicate key "lr" with value "0.1"',
            id="key twice",
        ),
    ],
)
def test_a_file_that_is_no_params_file(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    complained = complaint(path, monkeypatch)
    assert complained.startswith(f"{path}: ")
    assert message in complained
    assert complained.count("\n") == (1 if "the whole file" in message else 0)


def test_a_duplicate_key_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  lr: 1.0\n  epochs: 2\n  lr: 2.0\n")
    complained = complaint(path, monkeypatch)
    assert 'found duplicate key "lr" with value "2.0" (original value: "1.0")' in complained
    assert "line 4" in complained


@pytest.mark.parametrize("content", ["a: &x [*x]\n", "? [a, b]\n: 1\n"], ids=["recursive", "a list as a key"])
def test_yaml_that_is_no_json(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    assert complaint(path, monkeypatch).startswith(f"{path}: ")


def test_a_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "params.yaml"
    assert complaint(path, monkeypatch) == f"{path}: no such file; run this at the top of the repository"


class Numbers(Section):
    lr: float


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-05", 1e-05),  # as `dvc exp run -S` writes it
        ("1e-5", 1e-5),
        ("1E-5", 1e-5),
        ("1.0e-05", 1e-05),
        ("5e-4", 0.0005),
        ("0.0005", 0.0005),
        ("1", 1.0),
        ("+.5", 0.5),
    ],
)
def test_numbers_are_read_as_dvc_writes_them(text: str, value: float, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"x:\n  lr: {text}\n")
    lr = load_params(Numbers, "x", path).lr
    assert type(lr) is float
    assert lr == value


def test_train_lr_in_scientific_notation(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    lines = ["  lr: 1e-05" if line.startswith("  lr: ") else line for line in TEXT.splitlines()]
    path.write_text("\n".join(lines) + "\n")
    params = load_params(AllParams, path=path)
    assert (params.train.lr, params.classifier.lr) == (1e-05, 1e-05)
