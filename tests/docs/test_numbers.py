"""A number with decimals, before % or beside ± stands in a file that its row, its section or its page links to."""

import re
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path

import pytest

from studies.summary import STUDIES, summaries

ROOT = Path(__file__).resolve().parents[2]
FOUND = sorted(each.relative_to(ROOT) for folder in ("docs", "studies") for each in (ROOT / folder).rglob("*.md"))
PAGES = ["CHANGELOG.md", "README.md", *(str(each) for each in FOUND if not {"walk", "table.md"} & {*each.parts})]
NUMBER = re.compile(r"(?<![\w.,:/-])[-+]?\d[\d,]*(?:\.\d+)?(?![\w/]|[.,]\d)")
VALUE = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?(?:e-?\d+)?(?!\w)")
LINK = re.compile(r"\]\(([^)]+\.(?:csv|json|yaml|py))\)")
OTHER = re.compile(  # tables that scripts.publish makes, code, targets of links, versions
    r"<!-- from .*?<!-- end -->|^```.*?^```|`[^`]*`|(?<=\])\([^)]*\)"
    r"|\b(?:Python|DVC|Slurm|YAML|BY-SA|release) \d[\d.]*\d(?: to [\d.]+\d)?",
    re.DOTALL | re.MULTILINE,
)
MANY = 100  # rows, of which some have any value: a page shows means of them, from another file


@cache
def values(path: Path) -> frozenset[Decimal]:
    text = path.read_text()
    few = path.suffix != ".csv" or text.count("\n") <= MANY
    return frozenset(map(Decimal, VALUE.findall(text))) if few else frozenset()


def equal(number: str, values: set[Decimal], percent: bool) -> bool:
    shown = Decimal(number.replace(",", ""))
    near = [each for value in values for each in (value, 100 * value)[: 1 + percent] if abs(each - shown) < 1]
    return any(each.quantize(shown, way) == shown for each in near for way in (ROUND_HALF_UP, ROUND_HALF_EVEN))


def numbers(page: str, folder: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield where each number begins, its text, and whether it stands in a linked file."""
    text = OTHER.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), page)
    for found in NUMBER.finditer(text):
        start, end = found.span()
        percent = re.match(r" ?%", text[end:]) is not None
        if "." in found[0] or percent or "±" in text[start - 2 : start] + text[end : end + 2]:
            row = page[page.rfind("\n", 0, start) + 1 : page.find("\n", end)]
            heading, after = page.rfind("\n## ", 0, start), page.find("\n## ", end)
            section = page[heading : after if after > 0 else None] if heading > 0 else ""
            places = [row if row.startswith("|") else "", section, page]
            linked = next((names for place in places if (names := LINK.findall(place))), [])
            known = {value for name in linked for value in values((folder / name).resolve())}
            yield start, found[0], equal(found[0], known, percent or "±" in row)


NUMBERED = [page for page in PAGES if any(numbers((ROOT / page).read_text(), (ROOT / page).parent))]


@pytest.mark.parametrize("page", NUMBERED)
def test_numbers_stand_in_rows(page: str) -> None:
    found = numbers((ROOT / page).read_text(), (ROOT / page).parent)
    assert [number for _, number, stands in found if not stands] == []


@pytest.mark.parametrize("page", NUMBERED)
def test_wrong_digits_are_found(page: str) -> None:
    """In a third of the numbers at least: another row may have the wrong one, above all if it has few digits."""
    text, folder = (ROOT / page).read_text(), (ROOT / page).parent
    found = []
    for start, number, _ in (known := [*numbers(text, folder)]):
        wrong = text[:start] + number[:-1] + str((int(number[-1]) + 1) % 10) + text[start + len(number) :]
        found.append(not next(stands for at, _, stands in numbers(wrong, folder) if at == start))
    assert sum(found) >= len(known) / 3


def test_means_are_of_the_rows() -> None:
    made = summaries()
    assert {name: (STUDIES / name).read_text() for name in made} == made
