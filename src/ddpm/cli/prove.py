"""`ddpm prove`: check what is known of a model file, or build it again."""

from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import CliPositionalArg

from ddpm.cli.options import Options
from ddpm.diffusion.training import environment_of
from ddpm.processes.device import portable_facts, start
from ddpm.processes.portable import PORTABLE, lacking
from ddpm.proving.facts import commit_of, committed, compared, facts_of, git, read_provenance
from ddpm.proving.rebuild import rebuild
from exact_stages.console import UserError
from exact_stages.provenance import beside

OWN = {"file", "weights", "metadata", "dvc.lock"}  # kinds of facts without which there is nothing to rebuild


class Prove(Options):
    """Check what is known of a model file: whether this checkout and this machine have all that made it.

    Prints a line for each fact that differs, and counts those that hold. Run it at the top of a clone of the
    repository. With --rebuild, a temporary clone of the commit runs the stages again, and the bytes are compared. Where
    no commit records the file, that of the last commit is built.
    """

    model: CliPositionalArg[Path]
    """model file, such as models/ddpm.safetensors; its provenance is next to it"""
    rebuild: bool = False
    """build the file again, which takes as long as its training"""
    until: Annotated[int, Field(ge=1)] | None = None
    """with --rebuild: compare the training up to this step alone"""

    def run(self) -> None:
        """Print the facts; exit with code 0 if all hold, or if the bytes match.

        Raises:
            UserError: a fact does not hold, or the bytes differ.
        """
        if not (Path("dvc.yaml").is_file() and Path(".git").exists()):
            raise UserError("no checkout is here: `git clone` the repository of this package, and run this at its top")
        file = self.model
        made = read_provenance(beside(file)) if file.is_file() else None
        commit = commit_of(beside(file), made) if made else ""
        last = committed(file) if self.rebuild and not commit else None
        if not (made := last or made):
            raise UserError(f"{file}: no such file; `dvc pull` or `dvc repro` brings it")
        if made.environment.get("precision") == PORTABLE:  # only the processor must be able to
            environment = portable_facts() | ({"precision": fault} if (fault := lacking()) else {})
        else:
            environment = environment_of(start(), made.environment.get("processes", 1))
        if last:
            print(f"note: no commit records {file}, so this builds that of the last commit")
            commit = git("rev-parse", "HEAD").decode().strip()
        found = compared("environment", last.environment, environment) if last else facts_of(file, made, environment)
        unknown = "no commit of this branch records it with this code; in a shallow clone, `git fetch --unshallow`"
        found["dvc.lock", made.file] = "" if commit else unknown
        faults = {key: fault for key, fault in found.items() if fault}
        for (kind, name), fault in faults.items():
            print(f"differs  {kind} {name}: {fault}")
        for kind, count in Counter(kind for kind, name in found if (kind, name) not in faults).items():
            print(f"holds    {kind}: {f'commit {commit} records it' if kind == 'dvc.lock' else count}")
        if faults and not (self.rebuild and OWN.isdisjoint(kind for kind, _ in faults)):
            raise UserError(f"{file}: {len(faults)} of {len(found)} facts differ")
        if not self.rebuild:
            return
        if self.until and not made.trail:
            raise UserError("--until: no hashes of steps are recorded; leave it out")
        if lines := rebuild(made, commit, self.until):
            raise UserError("\n  ".join([f"{file}: NO MATCH", *lines]))
        equal = f"the first {self.until} steps are those" if self.until else f"{file} is that"
        renamed = not self.until and ("environment", "torch") in faults
        print(f"MATCH: {equal} of commit {commit}, byte for byte{', but for the torch that it names' * renamed}")
