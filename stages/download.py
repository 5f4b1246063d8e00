"""Download the missing raw files of MNIST or Fashion-MNIST, if data.set names it."""

from pathlib import Path

from ddpm.images.fetching import CHECKSUMS, fetch
from exact_stages.files import write_whole
from exact_stages.params import Sections
from exact_stages.stage import Stage, run_stage

NOTE = "Empty: only the set that data.set names in params.yaml is downloaded.\n"


class Params(Sections):
    """The params of this stage."""

    set: str


def main(stage: Stage) -> None:
    """Download the files and print their source; another folder keeps its files, or gets a note.

    DVC wants every output to exist, and warns of an empty folder.
    """
    wanted = Path(stage.params(Params, "data").set)
    for name in CHECKSUMS:
        folder, note = Path("data", name), Path("data", name, "README")
        if folder == wanted:
            print(f"{folder}: {fetch(name, folder)}")
            note.unlink(missing_ok=True)
        elif not folder.is_dir() or not any(folder.iterdir()):
            write_whole(note, NOTE.encode())


if __name__ == "__main__":
    run_stage("download", main)
