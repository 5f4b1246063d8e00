"""Read one Python file: what it imports, and a hash that no comment and no docstring changes. Needs no other file."""

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Iterable
from functools import cache
from itertools import accumulate
from typing import NamedTuple

CODING = re.compile(r"[ \t\f]*#.*?coding[:=]")  # of PEP 263, in the first two lines
FAILS = re.compile(r"\b(ImportError|ModuleNotFoundError|Exception)\b")  # what the failure of an import raises
RUNS_OTHERS = {"import_module", "__import__", "spec_from_file_location", "SourceFileLoader", "run_module", "run_path"}
RUNS_OTHERS |= {"resolve_name", "instantiate"}  # of pkgutil and hydra
ELSEWHERE = re.compile(r"version_info|platform|id='os'.*attr='name'|TYPE_CHECKING")  # in a condition on who reads it
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Import(NamedTuple):
    """One import: `import module` if names is None, else `from module import names`, with `level` dots before it.

    binds: it binds the first name of the module, as `import a.b` does, and `import a.b as c` does not.
    lazy: it stands in the `__getattr__` of the module (PEP 562). optional: its failure is caught, or others read it.
    """

    line: int
    level: int
    module: str
    names: tuple[str, ...] | None
    binds: bool
    lazy: bool
    optional: bool


class Source(NamedTuple):
    """What is known of a Python file.

    plain, whole: its hashes, without and with comments and docstrings. bound: names that importing it binds.
    scripts: paths of Python files in its texts. hidden: lines and names of what may run code that no import shows.
    words: its names, attributes and modules.
    """

    plain: str
    whole: str
    imports: list[Import]
    bound: set[str]
    scripts: list[str]
    hidden: list[tuple[int, str]]
    words: set[str]


@cache
def parsed(data: bytes) -> Source:
    """Read the bytes of a Python file; raise SyntaxError or ValueError if they are not valid Python."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    text, tree = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n"), ast.parse(data)
    documented = (node for node in ast.walk(tree) if isinstance(node, DOCUMENTED))
    docstrings = {id(each): each for node in documented for each in _docstring(node)}
    plain, whole = (hashlib.sha256(each.encode()).hexdigest() for each in (_plain(text, docstrings.values()), text))
    found, texts = Source(plain, whole, [], set(), [], [], set()), list[tuple[int, str]]()
    lazy = _within(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__getattr__")
    optional = _within(each for node in ast.walk(tree) for each in _caught(node))
    for statement in tree.body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.bound.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found.bound.update(each.asname or each.name.split(".")[0] for each in names)
            case ast.Assign(targets=targets):
                found.bound.update(each.id for each in targets if isinstance(each, ast.Name))
    for node in ast.walk(tree):
        flags = id(node) in lazy, id(node) in optional
        match node:
            case ast.Import(names=names, lineno=line):
                found.imports.extend(Import(line, 0, each.name, None, each.asname is None, *flags) for each in names)
                found.words.update(word for each in names for word in each.name.split("."))
            case ast.ImportFrom(module=module, names=names, lineno=line, level=level):
                found.imports.append(Import(line, level, module or "", tuple(e.name for e in names), False, *flags))
                found.words.update((module or "").split("."), (each.name for each in names))
                found.hidden.extend((line, each.name) for each in names if each.name in RUNS_OTHERS)
            case ast.Name(id=word, lineno=line) | ast.Attribute(attr=word, lineno=line):
                found.words.add(word)
                if word in RUNS_OTHERS or (word == "exec" and isinstance(node, ast.Name)):
                    found.hidden.append((line, word))
            case ast.Constant(value=str(text), lineno=line) if id(node) not in docstrings:
                texts.append((line, text))
            case ast.List(elts=parts, lineno=line) | ast.Tuple(elts=parts, lineno=line):  # of a command
                texts.append((line, " ".join(str(each.value) for each in parts if isinstance(each, ast.Constant))))
    for line, text in texts:
        found.scripts.extend(re.findall(r"[\w./-]+\.py\b", text))
        modules = re.findall(r"(?:^| )-m (\w+(?:\.\w+)*)", text)
        found.imports.extend(Import(line, 0, f"{each}.__main__", None, False, False, True) for each in modules)
    return found


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.Constant]:
    match node.body:
        case [ast.Expr(value=ast.Constant(value=str()) as text), *_]:
            return [text]
    return []


def _caught(node: ast.AST) -> list[ast.stmt]:
    """Return the statements in which an import may fail: that is caught, or another Python, system or reader has it."""
    match node:
        case ast.Try(body=body, handlers=handlers) if any(
            not e.type or FAILS.search(ast.dump(e.type)) for e in handlers
        ):
            return [*body, *(each for other in handlers if "'path'" not in ast.dump(other) for each in other.body)]
        case ast.If(test=test, body=body, orelse=other) if ELSEWHERE.search(ast.dump(test)):
            return [*body, *other]
        case ast.With(body=body, items=items) if any(FAILS.search(ast.dump(each.context_expr)) for each in items):
            return body
    return []


def _within(nodes: Iterable[ast.AST]) -> set[int]:
    return {id(each) for node in nodes for each in ast.walk(node)}


def _plain(text: str, docstrings: Iterable[ast.Constant]) -> str:
    """Cut comments and docstrings; and outside of strings, blank lines and spaces at the ends of lines.

    All are cut by their positions: tokens of f-strings, and `ast.dump`, differ between versions of Python.
    """
    lines = text.split("\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)]

    def of_bytes(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    spans = {  # by their start: the end, and whether the text stays
        of_bytes(each.lineno, each.col_offset): (of_bytes(each.end_lineno or 0, each.end_col_offset or 0), False)
        for each in docstrings
    }
    depth, first = 0, 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind, start = tokenize.tok_name[token.type], starts[token.start[0] - 1] + token.start[1]
        end = start + len(token.string)  # Python 3.12.1 gives wrong ends to strings of several lines
        if kind.endswith("STRING_START"):  # of an f-string, from Python 3.12 on
            first, depth = first if depth else start, depth + 1
        elif kind.endswith("STRING_END"):
            depth -= 1
        if kind.endswith("STRING_END") and not depth:
            spans.setdefault(first, (end, True))
        elif kind == "STRING" and not depth:
            spans.setdefault(start, (end, True))
        elif kind == "COMMENT" and not depth and not (token.start[0] < 3 and CODING.match(token.line)):
            spans[start] = end, False
    parts, place = list[str](), 0
    for start, (end, stays) in sorted(spans.items()):
        if start >= place:  # else it lies within a docstring
            parts += [text[place:start], text[start:end].replace("\n", "\0") if stays else ""]
            place = end
    found = list[str]()
    for line in "".join([*parts, text[place:]]).split("\n"):
        line = line.rstrip(" \t\f")
        if line or (found and found[-1].endswith("\\")):  # which joins the next line, even an empty one
            found.append(line)
    return "\n".join(found)
