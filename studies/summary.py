"""Write the means, errors and ratios that pages of studies show, from the rows of the studies.

python -m studies.summary
"""

from pathlib import Path

import pandas as pd

from exact_stages.console import run
from exact_stages.files import write_whole

STUDIES = Path(__file__).parent


def main() -> None:
    """Write all files."""
    for name, text in summaries().items():
        write_whole(STUDIES / name, text.encode())


def summaries() -> dict[str, str]:
    """Return the text of each file, by its name."""
    frames = {
        "samplers/spacing_means.csv": spacing(),
        "speed/stages_ratios.csv": stages(),
    }
    return {name: frame.to_csv(float_format="%.6g", lineterminator="\n") for name, frame in frames.items()}


def read(name: str) -> pd.DataFrame:
    """Read the rows of a study."""
    return pd.read_csv(STUDIES / f"{name}.csv")


def spacing() -> pd.DataFrame:
    """Return the means of both spacings, and of their differences with its error; a pair has a model and a noise."""
    scores = ["specks", "c2st_2", "c2st_8", "b", "b_error"]
    rows = read("samplers/spacing").set_index(["model", "noise"])
    trailing, log_snr = (rows[rows["spacing"] == each][scores] for each in ("trailing", "log_snr"))
    change = log_snr - trailing
    means = {"trailing": trailing.mean(), "log_snr": log_snr.mean(), "change": change.mean()}
    return pd.DataFrame({**means, "change_error": change.sem()}).rename_axis("score")


def stages() -> pd.DataFrame:
    """Return the seconds of each stage and of all by precision, and their ratio to those of bfloat16."""
    seconds = read("speed/stages").pivot_table("seconds", "stage", "precision", sort=False)
    seconds.loc["all"] = seconds.sum()
    return seconds.assign(**{f"{name}_ratio": seconds[name] / seconds["bfloat16"] for name in ("float32", "portable")})


if __name__ == "__main__":
    run(main)
