"""Hash single operations, and a tiny training, sampling and scoring, in portable mode.

python -m tests.golden            # print the hashes, in the order in which they are computed
python -m tests.golden --write    # keep them as those of this version of torch, in golden.json
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddpm.processes.portable import PORTABLE, limit

KNOWN = Path(__file__).with_name("golden.json")  # one line for each version of torch
UNSTABLE = {"tan", "acos"}  # MKL begins them with an estimate, and no stage calls them


def main() -> None:
    """Print the hashes as JSON, and keep them if the command line says so."""
    os.environ |= {"DDPM_PRECISION": PORTABLE, "DDPM_WORKERS": "1", "OMP_NUM_THREADS": "1"}
    limit()
    from ddpm.processes.device import portable_facts

    torch = str(portable_facts()["torch"])
    found = dict(hashes())
    print(json.dumps({"torch": torch, "hashes": found}))
    if "--write" in sys.argv[1:]:
        lines = {**known(), torch: found}
        KNOWN.write_text(
            "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(lines[name])}" for name in sorted(lines)) + "\n}\n"
        )


def known() -> dict[str, dict[str, str]]:
    """The kept hashes, by the version of torch."""
    return dict(json.loads(KNOWN.read_text())) if KNOWN.exists() else {}


def hashes() -> Iterator[tuple[str, str]]:
    """Yield the name of each step and a hash of its result; the first that differs is where two processors part."""
    from studies.processors import operations

    yield from operations.hashes().items()
    from torch.utils._python_dispatch import TorchDispatchMode

    from ddpm.processes.device import start

    class Watch(TorchDispatchMode):
        """Refuses operations that are rounded otherwise elsewhere, and that `portable` does not replace."""

        def __torch_dispatch__(self, called: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = called.overloadpacket.__name__.rstrip("_")
            assert name not in UNSTABLE, name
            root = str(called) == "aten.pow.Tensor_Scalar" and args[1] == 0.5
            assert not root, "a tensor ** 0.5 is MKL's root; use sqrt()"
            return called(*args, **(kwargs or {}))

    start()
    with tempfile.TemporaryDirectory() as folder, Watch():
        yield from _modelled(Path(folder, "model.safetensors"))
        yield from _scored(Path(folder))


def _modelled(path: Path) -> Iterator[tuple[str, str]]:
    import torch

    from ddpm.diffusion.bits import bits_per_dimension
    from ddpm.diffusion.model import load_model
    from ddpm.diffusion.sets import sample_batch
    from studies.processors.operations import hashed
    from tests.cli.generating import sampler
    from tests.small import CPU
    from tests.trainings import small_training, split

    like_the_default: dict[str, Any] = {
        "optimizer": "muon",
        "lr_decay": "cosine",
        "warmup_steps": 2,
        "loss": "v",
        "prediction": "v",
    }
    learning: dict[str, Any] = {"log_snr_center": -1.0, "target_images": 16, "guide_share": 0.5, "attention": True}
    network: dict[str, Any] = {"channels": (8, 16), "patch_size": 2, "time_embed_dim": 8}
    training = small_training(24, held_out=4, epochs=2, batch_size=8, **like_the_default, **learning, **network)
    first: list[tuple[str, str]] = []
    for name, module in training.network.named_modules():
        if not [*module.children()]:
            module.register_forward_hook(
                lambda _, __, out, name=name: first.append((f"first training step, {name}", hashed(out)))
            )
    for index, _ in enumerate(training.run()):
        for module in training.network.modules() if not index else ():
            module._forward_hooks.clear()
        yield from first if not index else ()
        yield f"weights after training step {training.step}", hashed(*training.network.state_dict().values())
    yield "validation", hashed(torch.tensor(training.curves.rows["validation"], dtype=torch.float64))
    training.save(path)
    loaded = load_model(path)
    for name in ("dpmpp_2m", "ddpm"):
        for step in sample_batch(loaded, sampler(sampler=name, guidance=1.5), 1, range(4), CPU):
            yield f"sampling by {name}, t = {step.t}", hashed(step.x_prev)
    bits = bits_per_dimension(loaded, {"test": split(4)}, 4, CPU.device)
    yield "likelihood", hashed_text(bits)


def _scored(folder: Path) -> Iterator[tuple[str, str]]:
    import torch
    from torch.nn import functional as F

    from ddpm.images.splits import Split, to_uint8
    from ddpm.scores import c2st
    from ddpm.scores.classifier import Classifier, Recipe, features_and_logits, save_classifier
    from ddpm.scores.evaluation import evaluate
    from ddpm.scores.fit import train_classifier
    from studies.processors.operations import fixed, hashed
    from tests.small import CPU, DIGITS

    def drawn(count: int, contrast: float) -> Split:
        spots = F.interpolate(fixed(count, 1, 7, 7), scale_factor=4.0, mode="nearest")
        return Split(to_uint8(spots * contrast), torch.arange(count) % 3)

    train, test, samples = drawn(320, 0.9), drawn(161, 0.8), drawn(163, 0.7)
    files = {name: folder / f"classifier-{name}.safetensors" for name in "ab"}
    for seed, path in enumerate(files.values()):
        torch.manual_seed(seed)
        classifier = Classifier(Recipe(images_seen=512, seed=seed, channels=8, batch_size=64), DIGITS)
        for step, loss in enumerate(train_classifier(classifier, train, CPU), 1):
            yield f"classifier {path.stem[-1]}, step {step}", hashed(loss, *classifier.state_dict().values())
        save_classifier(path, classifier)
    yield "features", hashed(*features_and_logits(classifier, test.images, CPU.device))
    c2st.STEPS = 2
    scores = evaluate((samples.images, samples.labels), test, train, [0, 1, 2], files, CPU).scores
    for name in ("a", "b", "pixels", "samples", "test"):
        if name in scores:
            yield f"scores, {name}", hashed_text(scores[name])


def hashed_text(values: Any) -> str:
    """The beginning of a hash of JSON-compatible values."""
    import hashlib

    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]


if __name__ == "__main__":
    main()
