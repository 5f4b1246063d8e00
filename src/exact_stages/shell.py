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


class Command(NamedTuple):
    """A command: its text, the scripts with which Python begins, if it starts Python, and where modules lie."""

    text: str
    scripts: list[str]
    roots: list[Path]


def commands(stage: Any, top: Path) -> Iterator[Command]:
    """Yield the commands of a stage of DVC; modules lie beside the script, in PYTHONPATH, beside dvc.yaml, or in src.

    Args:
        top: the folder of dvc.yaml.
    """
    folder = Path(relpath(stage.wdir))
    roots = [each / below for each in (folder, top, Path()) for below in (".", "src")]
    for words, variable in _split(stage.cmd if isinstance(stage.cmd, str) else "\n".join(stage.cmd)):
        variable = re.sub(r"\$(PYTHONPATH\b|\{PYTHONPATH\b[^}]*\})", "", variable)
        variable = re.sub(r"\$(PWD\b|\{PWD\})", ".", variable)
        paths = [*(folder / each for each in variable.split(":") if each), *roots]
        scripts, beside = _scripts(words, folder, paths)
        unknown = [f"PYTHONPATH={variable}"] if "$" in variable else []
        yield Command(" ".join([*unknown, shlex.join(words)]), [] if unknown else scripts, [*beside, *paths])


def _split(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield each command in a shell's text and its PYTHONPATH, without what starts it: exec, env, variables, sh -c."""
    plain = re.sub(r"\\\n|\d?>&\d|&(?=>)|(?<!\S)#.*", " ", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))  # with defaults
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
                case ["exec" | "env", *rest] | ["-u", _, *rest] | ["poetry" | "uv" | "pipenv", "run", *rest]:
                    words = rest
                case [word, *rest] if assigned := re.match(r"(\w+)=(.*)", word, re.DOTALL):
                    words, variable = rest, assigned[2] if assigned[1] == "PYTHONPATH" else variable
                case ["sh" | "bash", "-c", inner, *_]:
                    yield from ((command, own or variable) for command, own in _split(inner))
                    break
                case _:
                    yield words, variable
                    break


def _scripts(words: Sequence[str], folder: Path, roots: Sequence[Path]) -> tuple[list[str], list[Path]]:
    """Return the files that Python starts with, and the folders of scripts, where it looks first.

    The files are a script, or a module and its packages; none for other commands.
    """
    program, *rest = words
    while rest and re.fullmatch(r"-[^mc]", rest[0]):
        rest = rest[2 if rest[0] in ("-W", "-X") else 1 :]
    match rest if re.fullmatch(r"(\S*/)?python[\d.]*", program) else []:
        case ["-m", module, *_]:
            found = (files_of(f"{module}.__main__", str(root)) for root in roots)
            own = (module.split(".")[-1], "__main__")
            return [file for files in found if files and Path(files[-1]).stem in own for file in files], []
        case [name, *more] if (script := folder / name).is_file():
            files, beside = _scripts(more, folder, roots) if more else ([], [])  # it may start another
            return [str(script), *files], [script.parent, *beside]
    return [], []
