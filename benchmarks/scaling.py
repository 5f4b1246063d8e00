"""How the cost of training grows with batch size, channels and image size: images per second and peak memory.

    python -m benchmarks.scaling --seconds 5

Every setting differs from the default in one thing, and in what follows from it where that is the image size; it runs
in a process of its own. Prints a table, and writes docs/scaling/costs.csv and costs.png.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import LogLocator, ScalarFormatter

from benchmarks.preprocess_memory import MEGABYTE
from benchmarks.trainings import NOISE, on_noise
from ddpm.drawing_options import at_least
from ddpm.runtime.console import progress, run
from ddpm.runtime.device import start
from ddpm.runtime.files import write_whole
from ddpm.runtime.params import load_params
from ddpm.scoring.figures import to_png
from stages.train import Params

OUT = Path("docs/scaling")
SETTINGS = {
    "batch size": [2, 8, 32, 64, 128, 256, 512],
    "channels": [8, 16, 32, 64],
    "image size": [28, 32, 64],
}


def main() -> None:
    """Measure every setting, or the one that another process of this script asks for."""
    args = arguments()
    if args.only:
        print(json.dumps(measure(json.loads(args.only), args.seconds)))
        return
    rows = []
    for what, value in progress(
        [(what, value) for what, values in SETTINGS.items() for value in values], desc="scaling"
    ):
        setting = json.dumps({what: value})
        command = [sys.executable, "-m", "benchmarks.scaling", "--seconds", str(args.seconds), "--only", setting]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append({"what": what, "value": value, **json.loads(printed.splitlines()[-1])})
    table = pd.DataFrame(rows)
    write_whole(OUT / "costs.csv", table.to_csv(index=False).encode())
    write_whole(OUT / "costs.png", plot(table))
    print("| | | images/s | peak memory in MB |\n| --- | --- | --- | --- |")
    for row in table.itertuples():
        print(f"| {row.what} | {row.value} | {row.images_per_second:.0f} | {row.peak_megabytes:.0f} |")


def measure(setting: dict[str, int], seconds: float) -> dict[str, float]:
    """Train on noise for so many seconds; channels are those of the first resolution, the others grow with them."""
    params = load_params(Params)
    channels, _, side = NOISE.shape
    side = setting.get("image size", side)
    data = NOISE.model_copy(update={"shape": (channels, side, side)})
    model = params.model.for_images(data.shape)
    default = model.channels or ()
    widths = tuple(width * setting.get("channels", default[0]) // default[0] for width in default)
    batch = setting.get("batch size", params.train.batch_size)
    recipe = params.train.model_copy(update={"batch_size": batch})
    changed = {"model": model.model_copy(update={"channels": widths}), "train": recipe}
    trained = on_noise(params.model_copy(update=changed), 10 * batch, start(), data)
    events = trained.run()
    while trained.step < 3:
        next(events)
    began, first_step = time.perf_counter(), trained.step
    while time.perf_counter() - began < seconds:
        next(events)
    rate = (trained.step - first_step) * batch / (time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE
    return {"images_per_second": round(rate, 1), "peak_megabytes": round(peak, 1)}


def plot(table: pd.DataFrame) -> bytes:
    """A column for each thing that grows: images per second above, memory below."""
    figure, axes = plt.subplots(2, len(SETTINGS), figsize=(9, 5), layout="constrained", sharex="col", sharey="row")
    for column, (what, rows) in enumerate(table.groupby("what", sort=False)):
        for axis, key, label in zip(
            axes[:, column],
            ("images_per_second", "peak_megabytes"),
            ("images per second", "peak memory in MB"),
            strict=True,
        ):
            axis.loglog(rows["value"], rows[key], marker="o")
            axis.set(ylabel=label if column == 0 else "")
            axis.set_xticks(rows["value"], [str(value) for value in rows["value"]])
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(ScalarFormatter())
            axis.minorticks_off()
        axes[1, column].set_xlabel(str(what))
    return to_png(figure)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=at_least(1), default=5, help="length of each measurement")
    parser.add_argument("--only", metavar="JSON", help="measure one setting and print it as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
