"""Find the Python scripts that the commands of a stage start, in the text of a shell."""

import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import groupby
from os.path import relpath
from pathlib import Path
from typing import Any, NamedTuple

from exact_stages.imports import files_of

ENDS = {*";&|()\n"}  # of a command in a shell
STARTS = re.compile(r"(\S*/)?(python[\d.]*|sh|bash|cd|pushd)")


class Command(NamedTuple):
    """A command: its text, the scripts with which Python begins, if it starts Python, and where modules lie."""

    text: str
    scripts: list[str]
    roots: list[Path]


def commands(stage: Any) -> Iterator[Command]:
    """Yield the commands of a stage; modules lie beside the script, in PYTHONPATH, beside dvc.yaml, or in src."""
    folders = [Path(relpath(stage.wdir))]
    for words, variable in _split(stage.cmd if isinstance(stage.cmd, str) else "\n".join(stage.cmd)):
        variable = re.sub(r"\$(PYTHONPATH\b|\{PYTHONPATH\b[^}]*\})", "", variable)
        variable = re.sub(r"\$(PWD\b|\{PWD\})", ".", variable)
        folders += [folders[-1] / words[-1]] * (words[0] in ("cd", "pushd"))  # in this shell or in one of its own
        paths = [each / below for each in folders for below in variable.split(":") if below]
        paths += [each / below for each in (*folders, Path()) for below in (".", "src")]
        scripts, beside = _scripts(words, folders, paths)
        unknown = [each for each in (f"PYTHONPATH={variable}", *map(str, folders)) if "$" in each]
        yield Command(" ".join([*unknown, shlex.join(words)]), [] if unknown else scripts, [*beside, *paths])


def _split(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield each command in a shell's text and its PYTHONPATH, without what starts a Python: exec, env, nice, sh -c."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)  # with defaults
    plain = re.sub(r"\\\n|\d?>&\d|[\d&]?>+\|?[ \t]*[^\s;&|()]*|(?<!\S)#.*", " ", text)
    lexer = shlex.shlex(plain, posix=True, punctuation_chars="".join(ENDS))
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    try:
        found = [*lexer]
    except ValueError:  # an open quotation
        found = [text]
    for ends, group in groupby(found, lambda word: {*word} <= ENDS):
        words, variable = [] if ends else [*group], ""
        while words:
            match words:
                case [word, *rest] if assigned := re.match(r"(\w+)=(.*)", word, re.DOTALL):
                    words, variable = rest, assigned[2] if assigned[1] == "PYTHONPATH" else variable
                case ["sh" | "bash", "-c", inner, *_]:
                    yield from ((command, own or variable) for command, own in _split(inner))
                    break
                case [word, *rest] if not STARTS.fullmatch(word) and any(map(STARTS.fullmatch, rest)):
                    words = rest
                case _:
                    yield words, variable
                    yield from (inner for word in words if "$(" in word for inner in _split(word))
                    break


def _scripts(words: Sequence[str], folders: Sequence[Path], roots: Sequence[Path]) -> tuple[list[str], list[Path]]:
    """Return the files of the scripts and modules that a Python and its arguments name, and the folders of scripts."""
    program, *rest = words
    while rest and re.fullmatch(r"-[^mc-]\w*", rest[0]):
        rest = rest[2 if rest[0] in ("-W", "-X") else 1 :]
    files, beside = list[str](), list[Path]()
    for before, word in zip(["", *rest], rest, strict=False) if re.fullmatch(r"(\S*/)?python[\d.]*", program) else ():
        scripts = [path for each in folders if (path := each / word.rpartition("=")[2]).is_file()]
        if before == "-m":
            own = (word.split(".")[-1], "__main__")
            found = [files_of(f"{word}.__main__", str(root)) for root in roots]
            files += [file for each in found if each and Path(each[-1]).stem in own for file in each]
        elif not before or word.endswith(".py"):
            files += map(str, scripts)
            beside += [path.parent for path in scripts]
        if not files and word != "-m":
            break
    return files, beside
