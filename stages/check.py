"""Check all of params.yaml, rules between sections included, before any other stage runs."""

from pathlib import Path

from ddpm.params.rules import AllParams, spanning_errors
from exact_stages.console import UserError
from exact_stages.stage import Stage, run_stage

CHECKED = Path("data/checked.txt")


def main(stage: Stage) -> None:
    """Check all params; write a text that never changes, so that a legal edit makes no other stage stale."""
    if errors := spanning_errors(stage.params(AllParams)):
        raise UserError("\n  ".join([f"params.yaml: {len(errors)} invalid", *errors]))
    stage.write(CHECKED, b"params.yaml is valid\n")


if __name__ == "__main__":
    run_stage("check", main)
