"""What preprocessing a folder of many pictures takes: peak resident memory, and seconds.

    python -m benchmarks.preprocess_memory --count 100000

The pictures are 64 x 64 in colour, no two of them equal, in ten classes; they lie in a temporary folder, with a copy of
the code in which the stage runs.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm.runtime.console import UserError, progress, run
from ddpm.runtime.params import read_yaml

# Nothing that imports torch: the memory of this process counts as that of its child, until that is another program.
SIDE, COARSE, CLASSES = 64, 8, 10
SET = "pictures"
MEGABYTE = 1 << (20 if sys.platform == "darwin" else 10)  # of what getrusage counts in: bytes on macOS, else kilobytes


def main() -> None:
    """Draw the pictures, run the stage, and print what it took."""
    count = arguments().count
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        copy_workspace(workspace)
        write_pictures(workspace / SET, count)
        began = time.perf_counter()
        command = [sys.executable, "-m", "stages.preprocess", SET]
        if subprocess.run(command, cwd=workspace, env={**os.environ, "PYTHONSAFEPATH": ""}).returncode:
            raise UserError("the stage failed, see above")
        seconds = time.perf_counter() - began
        written = sum(path.stat().st_size for path in (workspace / "data/processed").iterdir())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / MEGABYTE
    print(f"{count:,} pictures: {seconds:.1f} s, {peak:.0f} MB of memory at most; {written / 2**20:.0f} MB written")


def copy_workspace(workspace: Path) -> None:
    """What the stage runs on, with data.set and the pictures' own size in params.yaml."""
    for name in ("src", "stages"):
        shutil.copytree(name, workspace / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("dvc.yaml", workspace)
    params = read_yaml(Path("params.yaml"))
    params["data"] |= {"set": SET, "size": SIDE, "colour": True}
    (workspace / "params.yaml").write_text(json.dumps(params))  # which is YAML, too


def write_pictures(folder: Path, count: int) -> None:
    """Smooth noise, from dark to bright."""
    source = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    for index in progress(range(count), desc="pictures", unit="img"):
        levels = source.integers(0, 128, (COARSE, COARSE, 3), np.uint8) + source.integers(0, 128, 3, np.uint8)
        picture = Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        picture.save(folder / f"{index % CLASSES}/{index:07}.png", compress_level=1)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="pictures")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
