"""Sample with several scales of guidance, and count near copies by ratio and by distance. In studies/scores/.

    python -m studies.scores.guidance

It needs a default run in the workspace. Every row is saved at once, and not computed again.
"""

from pathlib import Path

import torch

from ddpm.compute.device import start
from ddpm.images.splits import load_split
from ddpm.model import load_model
from ddpm.sampling.params import SamplerParams
from ddpm.scoring.copying import compare_nearness, middle, shifted
from exact_stages.console import run
from studies.arguments import at_least, parser
from studies.scoring import MODELS, PROCESSED, sampled
from studies.table import Table


def main() -> None:
    """Compute the rows that the table does not have."""
    options = parser(__doc__)
    options.add_argument("--count", type=at_least(100), default=2000, help="samples of each scale")
    options.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.3, 2.0], help="of guidance")
    args = options.parse_args()
    table, runtime = Table(Path("studies/scores/guidance.csv")), start()
    train, test = (load_split(PROCESSED / f"{name}.safetensors").split for name in ("train", "test"))
    for scale in args.scales:
        key = {"guidance": scale, "count": args.count}
        if table.has(key):
            continue
        model = load_model(MODELS / "ddpm.safetensors", runtime.device)
        images, labels = sampled(model, SamplerParams(guidance=scale), args.count, runtime)
        both = (shifted(images), labels), (shifted(test.images), test.labels)
        *found, _ = compare_nearness(*both, (middle(train.images), train.labels), 0)
        for name, each in zip(("", "real_"), found, strict=True):
            key |= each.ratio.row(f"{name}ratio") | each.distance.row(f"{name}distance")
        table.add(key | {"threads": torch.get_num_threads(), "dtype": str(runtime.precision).removeprefix("torch.")})


if __name__ == "__main__":
    run(main)
