"""DVC's run cache leaves two names out of its keys, so no param may have them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.stage.cache import _get_cache_hash
from ruamel.yaml import YAML

PARAMS = Path(__file__).parents[1] / "params.yaml"


def keys(values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield key
        yield from keys(value) if isinstance(value, dict) else ()


def test_dvc_leaves_out_size_and_nfiles_and_no_param_has_these_names() -> None:
    """When the first of these fails, a sentence of CONTRIBUTING.md can go."""
    entries = [{"cmd": "x", "params": {"params.yaml": {"data": {"size": size, "nfiles": size}}}} for size in (28, 14)]
    assert _get_cache_hash(entries[0]) == _get_cache_hash(entries[1])
    assert not {"size", "nfiles"} & {*keys(YAML(typ="safe", pure=True).load(PARAMS))}
