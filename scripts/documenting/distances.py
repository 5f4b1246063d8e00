"""A plot of the configurations: the Frechet distance of each, as a multiple of that of real test images, as SVG."""

import math
from pathlib import Path

from scripts.results import CONFIGURATIONS, recorded

WIDTH, LEFT, RIGHT, ROW, TOP = 800, 220, 30, 36, 20  # pixels
LEAST, MOST, TICKS = 0.5, 200, (1, 10, 100)
STYLE = """
  text { fill: #222; font: 15px system-ui, sans-serif; } text.tick { text-anchor: middle; }
  line { stroke: #ccd2d8; } line.spread { stroke: #2f5d8a; stroke-width: 2; } circle { fill: #2f5d8a; }
"""


def distance_plot() -> str:
    """Return the plot: a dot for each configuration, with a line for its spread by chance, on a logarithmic axis."""
    foot = TOP + ROW * len(CONFIGURATIONS)
    high = foot + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" width="{WIDTH}" height="{high}"'
        ' role="img" aria-label="Frechet distance of each configuration">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{high}" rx="8" fill="#fff"/>',
    ]
    for tick in TICKS:
        parts.append(f'<line x1="{_across(tick)}" x2="{_across(tick)}" y1="{TOP}" y2="{foot}"/>')
        parts.append(f'<text class="tick" x="{_across(tick)}" y="{foot + 20}">{tick}</text>')
    for number, (name, (folder, _)) in enumerate(CONFIGURATIONS.items()):
        found, y = recorded(Path(folder)), TOP + ROW * number + ROW // 2
        real = found["scores.b.test.frechet"]
        distance, spread = (found[f"scores.b.samples.{key}"] / real for key in ("frechet", "frechet_deviation"))
        ends = [_across(each) for each in (max(distance - spread, LEAST), distance + spread)]
        parts.append(f'<text x="16" y="{y + 5}">{name}</text>')
        parts.append(f'<line class="spread" x1="{ends[0]}" x2="{ends[1]}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle cx="{_across(distance)}" cy="{y}" r="6"/>')
    label = "Frechet distance, classifier b, divided by that of real test images"
    parts.append(f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) // 2}" y="{foot + 46}">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _across(value: float) -> float:
    """Return the place of a value on the axis."""
    share = math.log(value / LEAST) / math.log(MOST / LEAST)
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)
