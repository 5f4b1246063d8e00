"""Whatever stands in the place of params.yaml, and whatever in it: one line, or one for each error, and soon."""

import datetime
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import MAX_LINES, MAX_PARAMS, Section, load_params, parse, read_yaml
from scripts.check_params import AllParams
from tests.pipeline.test_params_values import REPOSITORY, TEXT, complaint

CHANNELS = "channels: [16, 64, 128]"
NINE = {i: ", ".join([f"*a{i - 1}"] * 9) for i in range(1, 12)}
LAUGHS = "a0: &a0 [lol]\n" + "".join(f"a{i}: &a{i} [{nine}]\n" for i, nine in NINE.items())
MERGED = "a0: &a0 {lol: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{nine}]}}\n" for i, nine in NINE.items())
BRACKETS = "[" * 45, "]" * 45
CHAIN = f"a0: &a0 {BRACKETS[0]}1{BRACKETS[1]}\n"
CHAIN += "".join(f"a{i}: &a{i} {BRACKETS[0]}*a{i - 1}{BRACKETS[1]}\n" for i in range(1, 100))
DEEP = "not valid YAML: nested too deep, or within itself; make it flatter"
ALIASES = "not valid YAML: its aliases stand for too much; write fewer of them"
CONFLICT = "a merge conflict of git; keep one side of it, and delete the lines of <<<<<<<, ======= and >>>>>>>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x: 2024-13-45\n", "not valid YAML: month must be in 1..12"),
        (f"x: {'9' * 5000}\n", "not valid YAML: Exceeds the limit (4300 digits)"),
        (f"x: 0x{'f' * 5000}\n", "not a plain mapping of names to values (Exceeds the limit (4300 digits)"),
        (f"x: [{'9' * 60_000}.5e]\n", "invalid"),
        ("x: ._\n", "not valid YAML: could not convert string to float"),
        ("x: !!int abc\n", "not valid YAML: invalid literal for int()"),
        ("x: !!timestamp x\n", "not valid YAML: line 1: failed to construct timestamp"),
        ("x: !!python/object:os.system x\n", "not valid YAML: line 1: could not determine a constructor for the tag"),
        ("[" * 3000 + "]" * 3000, DEEP),
        ("[" * (MAX_PARAMS - 1), DEEP),
        ("{a: " * 3000, DEEP),
        ("- " * 3000, DEEP),
        ("? " * 3000, DEEP),
        ("".join(" " * level + "a:\n" for level in range(300)), "the whole file: invalid JSON: recursion limit"),
        ("a: &a [*a]\n", DEEP),
        ("a: &a {b: {c: [1, *a]}}\n", DEEP),
        ("&a {<<: *a}\n", DEEP),
        (LAUGHS, ALIASES),
        (MERGED, ALIASES),
        (f"a: &a {'x' * 30_000}\nb: [{'*a ,' * 7_000}]\n", ALIASES),
        (f"a: &a {{{', '.join(f'k{i}: 1' for i in range(4000))}}}\nb:\n" + "- <<: *a\n" * 1_000, ALIASES),
        # Of two texts, that of Python 3.11, and of 3.13.
        (
            CHAIN,
            "not a plain mapping of names to values (maximum recursion depth exceeded|invalid JSON: recursion limit",
        ),
        (f"{CHAIN}a: *a99\na: 1\n", "not valid YAML: line 102: found duplicate key"),
        ("".join(CHAIN.splitlines(keepends=True)[:6]), "the whole file: invalid JSON: recursion limit exceeded"),
        ("a: 1\nb: \0\n", "not valid YAML: unacceptable character #x0000"),
        ("a: 1\nb: \x1b[31m\n", "not valid YAML: unacceptable character #x001b"),
        ('"\\udc00": 1\n', "the whole file: invalid JSON: lone"),
        ('a: "\\Uffffffff"\n', "not valid YAML: Python int too large|not valid YAML: chr() arg not in range"),
        (b"a: \xed\xa0\x80\n", "not valid YAML: not UTF-8 (invalid continuation byte); save it as UTF-8"),
        (TEXT.encode("utf-16"), "not valid YAML: not UTF-8 (invalid start byte); save it as UTF-8"),
        (TEXT + "#" * MAX_PARAMS, "larger than 64 KiB; put the right file in its place"),
        ("a:\n<<<<<<< HEAD\n  b: 1\n=======\n  b: 2\n>>>>>>> other\n", f"line 2: {CONFLICT}"),
        ("<<<<<<< HEAD\nb: 1\n||||||| 1234567\nb: 0\n=======\nb: 2\n>>>>>>> other\n", f"line 1: {CONFLICT}"),
        ("a: 1\nb: 2\n>>>>>>> 1234567 (Message)\n", f"line 3: {CONFLICT}"),
        ("a: *" + "x" * 60_000, "not valid YAML: line 1: found undefined alias 'xxx"),
        ("a: !" + "x" * 60_000, "not valid YAML: line 1: could not determine a constructor for the tag '!xxx"),
        (
            f"a: {'x' * 30_000}\na: {'y' * 30_000}\n",
            f'found duplicate key "a" with value "{"y" * 40}',
        ),
    ],
    ids=lambda value: ascii(value[:20]) if isinstance(value, str | bytes) else len(value),
)
def test_a_poor_file_ends_in_one_line(
    content: str | bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    complained = complaint(path, monkeypatch)
    assert complained.startswith(f"{path}: ")
    assert any(each in complained for each in message.split("|"))
    if "invalid" not in message:
        assert complained.isprintable()
    assert len(complained) < 3000


def test_a_file_of_the_greatest_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT + "#" * (MAX_PARAMS - len(TEXT)))
    assert load_params(AllParams, path=path) == load_params(AllParams, path=REPOSITORY / "params.yaml")


@pytest.mark.parametrize("text", [TEXT.replace("\n", "\r\n"), "\ufeff" + TEXT], ids=["CRLF", "byte order mark"])
def test_files_from_windows(text: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode())
    assert load_params(AllParams, path=path) == load_params(AllParams, path=REPOSITORY / "params.yaml")


def test_a_lock_may_be_longer(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    stage = f"    cmd: {'x' * 400}\n    outs:\n    - path: data/x\n      hash: md5\n      md5: {1:031x}a\n"
    path.write_text("schema: '2.0'\nstages:\n" + "".join(f"  s{i}:\n{stage}" for i in range(3000)))
    assert path.stat().st_size > MAX_PARAMS
    stages = read_yaml(path)["stages"]
    assert len(stages) == 3000
    assert stages["s7"] == {"cmd": "x" * 400, "outs": [{"path": "data/x", "hash": "md5", "md5": f"{1:031x}a"}]}
    with pytest.raises(UserError, match="larger than 64 KiB"):
        read_yaml(path, MAX_PARAMS)


# --- what is no file -------------------------------------------------------------------------------------------------


def test_a_sparse_file_of_a_hundred_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "params.yaml"
    with path.open("wb") as file:
        file.truncate(100 << 30)
    assert complaint(path, monkeypatch) == f"{path}: larger than 64 KiB; put the right file in its place"


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complaint(tmp_path, monkeypatch) == f"{tmp_path}: not a regular file; put one in its place"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("absent", "no such file; its link leads to absent"),
        ("params.yaml", "cannot be read: Too many levels of symbolic links; mend its permissions, or put it anew"),
        ("/dev/zero", "not a regular file; put one in its place"),
        ("/proc/self/mem", "cannot be read: Input/output error; mend its permissions, or put it anew"),
        (f"{__file__}/x", "cannot be read: Not a directory; mend its permissions, or put it anew"),
    ],
)
def test_a_link(target: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "params.yaml"
    path.symlink_to(target)
    assert complaint(path, monkeypatch) == f"{path}: {problem}"


DENIED = "cannot be read: Permission denied; mend its permissions, or put it anew"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", ["params.yaml", "."])
def test_a_file_that_may_not_be_read(closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    (tmp_path / closed).chmod(0)
    complained = complaint(path, monkeypatch)
    (tmp_path / closed).chmod(0o700)
    assert complained == f"{path}: {DENIED}"


@pytest.mark.parametrize("step", ["exists", "open"])
def test_a_file_that_not_even_root_may_read(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "params.yaml")

    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    monkeypatch.setattr(Path, step, denied)
    assert complaint(path, monkeypatch) == f"{path}: {DENIED}"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    os.mkfifo(path)
    code = "import sys, pathlib, ddpm.pipeline.params as p; p.read_yaml(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, "-c", code, str(path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.stderr.endswith(f"UserError: {path}: not a regular file; put one in its place\n")


# --- long messages ---------------------------------------------------------------------------------------------------


class Values(Section):
    x: float = 0
    items: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (f"x: {'y' * 60_000}\n", [f'x: input should be a valid number, got "{"y" * 65}...{"y" * 24}"']),
        (
            f"x: [{'y, ' * 20_000}]\n",
            ['x: input should be a valid number, got ["y", "y", "y"'],
        ),
        (f"? {'y' * 60_000}\n: 1\n", [f"{'y' * 133}...{'y' * 50}: unknown key; remove it or mend its spelling"]),
        ('"\\e[31m\\n": 1\n', [r"\x1b[31m\n: unknown key; remove it or mend its spelling"]),
        ('x: "\\e[31m\\n\\u00e9"\n', [r'x: input should be a valid number, got "\u001b[31m\n\u00e9"']),
        (
            "".join(f"k{i}: 1\n" for i in range(5000)),
            [*(f"k{i}: unknown key; remove it or mend its spelling" for i in range(MAX_LINES)), "and 4950 more"],
        ),
        (
            f"items: [{'a, ' * 5000}]\n",
            [*(f'items.{i}: input should be a valid integer, got "a"' for i in range(MAX_LINES)), "and 4950 more"],
        ),
    ],
    ids=lambda value: ascii(value[:20]) if isinstance(value, str | bytes) else len(value),
)
def test_a_long_message_is_cut(content: str, lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        load_params(Values, path=path)
    first, *rest = str(caught.value).split("\n  ")
    assert first.startswith(f"{path}: ")
    assert first.endswith(" invalid")
    assert len(rest) == len(lines)
    assert all(line.startswith(wanted) for line, wanted in zip(rest, lines, strict=True)), rest
    assert all(len(line) < 400 for line in rest)


def in_itself() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


def nested(depth: int) -> list[Any]:
    values: list[Any] = []
    for _ in range(depth):
        values = [values]
    return values


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (datetime.date(2024, 1, 1), "not a plain mapping of names to values (Object of type date is not JSON"),
        (b"bytes", "not a plain mapping of names to values (Object of type bytes"),
        ({1, 2}, "not a plain mapping of names to values (Object of type set"),
        ({(1, 2): 3}, "not a plain mapping of names to values (keys must be str"),
        (in_itself(), "not a plain mapping of names to values (Circular reference detected)"),
        (nested(100_000), "not a plain mapping of names to values (maximum recursion depth exceeded"),
        (nested(300), "1 invalid\n  a.b: invalid JSON: recursion limit exceeded"),
        (16**5000, "not a plain mapping of names to values (Exceeds the limit"),
        ("\ud800", "1 invalid\n  a.b: invalid JSON: "),
        ("x" * 1_000_000, '1 invalid\n  a.b.x: input should be a valid number, got "xxx'),
        (10**4000, "1 invalid\n  a.b.x: input should be a finite number, got 1000"),
    ],
    ids=lambda value: ascii(value)[:20] if isinstance(value, str) else type(value).__name__,
)
def test_parse_of_values_that_no_file_has(value: Any, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Values, {"x": value}, "here", "a.b")
    assert str(caught.value).startswith(f"here: {problem}")
    assert len(str(caught.value)) < 400
