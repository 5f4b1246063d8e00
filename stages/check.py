"""Check all of params.yaml, rules between sections included, before any other stage runs."""

from collections.abc import Iterator
from pathlib import Path

from ddpm.params.rules import AllParams, spanning_errors
from exact_stages.console import UserError
from exact_stages.declared import Declared
from exact_stages.stage import Stage, run_stage

CHECKED = Path("data/checked.txt")


def main(stage: Stage) -> None:
    """Check all params; write a text that never changes, so that a legal edit makes no other stage stale."""
    params = stage.params(AllParams)
    if errors := [*missing_set(params.data.set), *spanning_errors(params)]:
        raise UserError("\n  ".join([f"params.yaml: {len(errors)} invalid", *errors]))
    stage.write(CHECKED, b"params.yaml is valid\n")


def missing_set(name: str) -> Iterator[str]:
    """Yield an error if nothing has this name, and no stage will make it; DVC's own message names no parameter."""
    if not Path(name).exists() and str(Path(name)) not in Declared().outs:
        yield f"data.set: {name}: no such folder or file; correct the name, `dvc pull` it, or copy it here"


if __name__ == "__main__":
    run_stage("check", main)
