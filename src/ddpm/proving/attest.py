"""Tell what made a file as an in-toto statement, which tools for supply chains sign and check."""

from typing import Any
from urllib.parse import quote

from ddpm.proving.facts import Provenance


def statement(made: Provenance, commit: str, builder: str) -> dict[str, Any]:
    """Return an in-toto statement (v1) about a file, with SLSA's provenance (v1).

    Args:
        commit: of this repository, which records the file, and names the code.
        builder: the URI of who vouches for the build.
    """
    files = [{"name": name, "digest": {"sha256": digest}} for name, digest in made.inputs.items()]
    packages = [{"uri": f"pkg:pypi/{name}@{quote(version)}"} for name, version in made.packages.items()]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": made.file, "digest": {"sha256": made.sha256}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://dvc.org/doc/command-reference/repro",
                "externalParameters": {"stage": made.stage, "params": made.params},
                "internalParameters": {"environment": made.environment, "resolved": made.resolved},
                "resolvedDependencies": [{"name": ".", "digest": {"gitCommit": commit}}, *files, *packages],
            },
            "runDetails": {"builder": {"id": builder}},
        },
    }
