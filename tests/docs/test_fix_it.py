"""The page of troubleshooting quotes errors as the code prints them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/fix-it.md"
JOINT = re.compile(r'"\s*f?"')  # between the parts of one message


def test_every_error_that_the_page_names_is_in_the_code() -> None:
    files = [path for folder in ("src", "stages", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
    code = JOINT.sub("", "\n".join(path.read_text() for path in files))
    errors = re.findall(r"\*\*`+(error: .+?)`+\s?\.?\*\*", PAGE.read_text().replace("\n", " "))
    assert len(errors) > 10
    for error in errors:  # parts of it vary, but some words in a row are the code's
        words = error.removeprefix("error: ").removesuffix(" ...").split()
        length = min(3, len(words) - 2)
        assert any(" ".join(words[first : first + length]) in code for first in range(len(words) - length + 1)), error
