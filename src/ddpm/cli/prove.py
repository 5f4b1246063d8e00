"""`ddpm prove`: check what is known of a model file, or build it again."""

import json
import math
import os
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic_settings import CliPositionalArg

from ddpm.cli.options import Options
from ddpm.compute.device import start
from ddpm.pretrained import models
from ddpm.proving.attest import statement
from ddpm.proving.damage import check_all
from ddpm.proving.facts import commit_of, facts_of, git, read_provenance
from ddpm.proving.rebuild import rebuild
from ddpm.training.begin import environment_of
from exact_stages.console import UserError
from exact_stages.files import md5, sha256, write_json
from exact_stages.provenance import beside

TRAINED = Path("models/ddpm.safetensors")
OWN = {"file", "weights", "metadata", "dvc.lock"}  # kinds of facts without which there is nothing to rebuild


class Prove(Options):
    """Check what is known of a model file: whether this checkout and this machine have all that made it.

    Prints a line for each fact that differs, and counts those that hold. Run it at the top of a clone of the
    repository. With --rebuild, a temporary clone of the commit runs the stages again, and the bytes are compared.
    """

    model: CliPositionalArg[Path | None] = None
    """model file, such as models/ddpm.safetensors; its provenance is next to it"""
    pretrained: str | None = None
    """instead of a file: a model that comes with the package, such as mnist"""
    rebuild: bool = False
    """build the file again, which takes as long as its training"""
    all: bool = False
    """also hash all outputs and the cache, and list damaged files"""
    attest: Path | None = None
    """write an in-toto statement with SLSA's provenance here, once all holds; it is not signed"""
    builder: str = ""
    """for --attest: the URI of who vouches for the build, such as mailto:ada@example.org"""

    def run(self) -> None:
        """Print the facts; exit with code 0 if all hold, or if the bytes match.

        Raises:
            UserError: a fact does not hold, or the bytes differ.
        """
        if not (Path("dvc.yaml").is_file() and Path(".git").exists()):
            raise UserError("no checkout is here: `git clone` the repository of this package, and run this at its top")
        named = (self.model is not None) + (self.pretrained is not None)
        if named > 1 or (not named and (self.rebuild or not self.all)):
            raise UserError("name one model: a file such as models/ddpm.safetensors, or --pretrained mnist")
        if bool(self.attest) != bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:\S+$", self.builder)):
            raise UserError("--attest OUT needs --builder URI, such as mailto:ada@example.org, and --builder needs it")
        if self.all:
            check_all()
        if file := self.model if self.pretrained is None else _original(self.pretrained):
            self._prove(file)

    def _prove(self, file: Path) -> None:
        if not file.is_file():
            raise UserError(f"{file}: no such file; `dvc pull` or `dvc repro` brings it")
        made = read_provenance(beside(file))
        shallow = git("rev-parse", "--is-shallow-repository") == b"true\n"
        found, commit = facts_of(file, made, _environment()), "" if shallow else commit_of(beside(file), made)
        which = "run `git fetch --unshallow`; a shallow clone cannot tell which" if shallow else "no"
        found["dvc.lock", made.file] = "" if commit else f"{which} commit of this branch records it with this code"
        faults = {key: fault for key, fault in found.items() if fault}
        for (kind, name), fault in faults.items():
            print(f"differs  {kind} {name}: {fault}")
        for kind, count in Counter(kind for kind, name in found if (kind, name) not in faults).items():
            print(f"holds    {kind}: {f'records it since commit {commit}' if kind == 'dvc.lock' else count}")
        if faults and not (self.rebuild and OWN.isdisjoint(kind for kind, _ in faults)):
            raise UserError(f"{file}: {len(faults)} of {len(found)} facts differ")
        if self.rebuild:
            if lines := rebuild(file, made, commit):
                raise UserError("\n  ".join([f"{file}: NO MATCH", *lines]))
            print(f"MATCH: {file} has the sha256 {made.sha256}, as rebuilt from commit {commit}")
        if self.attest:
            write_json(self.attest, statement(made, commit, self.builder))


def _environment() -> dict[str, Any]:
    """Return the environment in which stages would run here."""
    counts = re.findall(r"--n(?:nodes|proc[-_]per[-_]node)[= ](\d+)", os.environ.get("DDPM_LAUNCH", ""))
    count = math.prod(map(int, counts))
    return environment_of(start(), count)


def _original(name: str) -> Path:
    """Check that a packed model is a float16 copy of the one that it names, and return that one.

    Raises:
        UserError: the packed model is damaged or another, or the original is not here.
    """
    with models.packed(name) as path, tempfile.TemporaryDirectory() as scratch:
        facts = json.loads(models.FOLDER.joinpath(f"{name}.json").read_text())
        if not TRAINED.is_file() or md5(TRAINED) != facts["made_from_md5"]:
            where = f"`git checkout {facts['commit']}`, then `dvc pull` or `dvc repro train`"
            raise UserError(f"{TRAINED}: not the file that {name} was made from, md5 {facts['made_from_md5']}; {where}")
        models.pack(TRAINED, again := Path(scratch, "again"))
        if not sha256(again) == sha256(path) == facts["sha256"]:
            raise UserError(f"{path}: no float16 copy of {TRAINED}, or damaged; fetch the package again")
    print(f"holds    conversion: {name} is {TRAINED} in float16")
    return TRAINED
