"""A stage of the pipeline: alone at its work, and without outputs that would be recorded for what it did not run on.

DVC hashes code, inputs and params when a stage has ended. A stage therefore remembers what they were when it read them,
and leaves no outputs when they have changed meanwhile.
"""

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn, Self

from ddpm.pipeline.console import UserError, run
from ddpm.pipeline.lock import holds, take_lock
from ddpm.pipeline.params import read_yaml
from ddpm.pipeline.process import CODE, LAST
from ddpm.pipeline.provenance import Provenance, code_name

LOCKS = Path(".resume")  # in the workspace at hand: experiments in copies of it have their own
PATIENCE = 10  # seconds: a process that DVC's death has orphaned may still be saving its work


class Stage(Provenance):
    """One run of a stage, as a context: what it reads, and the outputs that belong to just that.

    Inside the block no other run of the stage is at work in this workspace: an orphan, say, of a DVC that was killed.
    At its end, and again when Python is about to leave, all that was read must be as it was; else the outputs go.

    Raises:
        UserError: another process is at this stage here, or it runs code that dvc.yaml does not list (on entering);
            what was read has changed (on leaving).
    """

    def __init__(self, name: str, item: str = "", alone: bool = True) -> None:
        """Begin with nothing read.

        Args:
            item: of the stage's matrix.
            alone: false for processes that help another and write nothing.
        """
        super().__init__()
        self.name = f"{name}-{item}" if item else name
        self.item = item
        self.alone = alone
        self._stage = name
        self._lock: IO[str] | None = None
        self._outputs: list[Path] = []

    def output(self, path: Path) -> Path:
        """Remember a file that is about to be written.

        Raises:
            UserError: the lock is this run's no more, so that another run may have written that file.
        """
        if self._lock and not holds(self._lock, LOCKS / f"{self.name}.lock"):
            raise UserError(f"{self.name}: {self._lock.name} was removed while it ran; its outputs are not written")
        self._outputs.append(path)
        return path

    def finish(self) -> None:
        """Look whether all is as it was, and have Python do so again when it leaves.

        Raises:
            UserError: something has changed; the outputs are removed.
        """
        if changed := self.changes():
            self.give_up(changed)
        LAST.append(self._last_look)

    def give_up(self, changed: Sequence[str]) -> NoReturn:
        """Remove the outputs, and say why.

        Raises:
            UserError: always.
        """
        for path in self._outputs:
            path.unlink(missing_ok=True)
        raise UserError(
            f"{self.name}: nothing of this run is kept as output, for these changed while it ran: "
            f"{', '.join(changed)}; put them back, or leave them so, and run it again"
        )

    def __enter__(self) -> Self:
        if self.alone:
            if undeclared := _undeclared(self._stage):
                raise UserError(
                    f"dvc.yaml: {self._stage}: runs {', '.join(undeclared)}; list it among the stage's deps"
                )
            self._lock = take_lock(LOCKS / f"{self.name}.lock", self.name, PATIENCE)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._lock:
            with contextlib.ExitStack() as stack:
                stack.push(self._lock)
                if kind is None:
                    self.finish()
                    stack.pop_all()  # the lock is held until the last look

    def _last_look(self) -> str:
        try:
            if changed := self.changes():
                self.give_up(changed)
        except UserError as error:
            return str(error)
        return ""


def run_stage(name: str, main: Callable[[Stage], None], items: Sequence[str] = (), argument: str = "") -> None:
    """Run the script of a stage; see `console.run` for how it ends.

    Args:
        items: those of its matrix, of which the command line names one.
        argument: what else the command line gives, in its usage's words; it is the stage's `item` as well.
    """

    def within() -> None:
        check_command(name, items, argument)
        with Stage(name, "" if argument else "".join(sys.argv[1:])) as stage:
            stage.item = "".join(sys.argv[1:])
            main(stage)

    run(within)


def check_command(name: str, items: Sequence[str] = (), argument: str = "") -> None:
    """Refuse another command than the stage's own, and a place where DVC would fail without a word of why.

    Raises:
        UserError: there are other arguments; or it was not run as a module, so that its code is not known.
    """
    given = sys.argv[1:]
    if not (len(given) == 1 if argument else given in ([[item] for item in items] or [[]])) or not CODE:
        usage = f" {argument}" if argument else f" {{{','.join(items)}}}" if items else ""
        raise UserError(f"usage: python -m stages.{name}{usage}")
    check_place()


def check_place() -> None:
    """Refuse a repository where DVC would fail without a word of why.

    Raises:
        UserError: its path has braces, or bytes that are not UTF-8.
    """
    path = str(Path.cwd())
    if set(path) & set("{}") or any("\udc80" <= letter <= "\udcff" for letter in path):
        raise UserError(
            f"{path}: DVC cannot work below a folder with braces or bytes that are not UTF-8; move the repository"
        )


def _undeclared(name: str) -> list[str]:
    """The files that this process runs and that dvc.yaml does not list for the stage: an edit would not be seen."""
    pipeline = Path("dvc.yaml")
    if not pipeline.is_file():
        return []
    deps = read_yaml(pipeline)["stages"][name]["deps"]
    return sorted(
        path
        for path in map(code_name, CODE)
        if path not in deps and str(Path(path).parent) not in deps and path != "src/ddpm/__init__.py"
    )
