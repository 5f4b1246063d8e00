"""Ask whether public DVC pipelines declare the code that they import.

    python -m studies.dependencies.run FOLDER

FOLDER has clones, named owner+name, of repositories of candidates.txt. They count in an order drawn by SEED, which is
printed without FOLDER. Of each repository the dvc.yaml nearest to its top counts, unless two earlier ones are LIKE it:
that share of the names of stages and scripts in either is in both. Nothing of a clone is run. Writes pipelines.csv,
with a row for each clone. Draws findings to read by hand to findings.csv, unless it is there.
"""

import contextlib
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd

from exact_stages.check import check
from exact_stages.console import UserError, progress, run, shown
from exact_stages.files import read_yaml
from studies.arguments import parser
from studies.table import read_rows

HERE = Path(__file__).parent
SEED, LIKE, READ = 0, 0.5, 40  # of the draws; see above; findings to read
HARMLESS = {"cat", "cp", "echo", "ls", "mkdir", "mv", "rm", "touch"}  # programs that run no code of a project
Row = dict[str, Any]


def main() -> None:
    """Check the clones of a folder, write the rows, and print the table."""
    args = parser(__doc__)
    args.add_argument("folder", type=Path, nargs="?", help="the folder of clones")
    folder = args.parse_args().folder
    draw, names = random.Random(SEED), (HERE / "candidates.txt").read_text().split()
    draw.shuffle(names)
    if not folder:
        print("\n".join(names))
        return
    rows, findings, layouts = list[Row](), list[Row](), list[set[str]]()
    for name in progress(names, desc="dependencies", unit="repository"):
        clone = folder.absolute() / name.replace("/", "+")
        if clone.is_dir():
            with contextlib.chdir(clone):
                row, found = checked(name, layouts)
            rows.append(row)
            findings += found
    pd.DataFrame(rows).to_csv(HERE / "pipelines.csv", index=False)
    if not (HERE / "findings.csv").exists():
        drawn = draw.sample(findings, min(READ, len(findings)))
        picked = [row | {"file": draw.choice(row["file"]), "right": "", "why": ""} for row in drawn]
        pd.DataFrame(picked).to_csv(HERE / "findings.csv", index=False)
    kept = read_rows(HERE / "pipelines.csv", keep_default_na=False)
    print(*table(kept), *intervals(kept), sep="\n")
    print(read_rows(HERE / "findings.csv")["right"].value_counts(dropna=False).to_string())


def checked(name: str, layouts: list[set[str]]) -> tuple[Row, list[Row]]:
    """Return the row of the repository in the working folder, and for each stage the files that its deps lack."""
    row: Row = {"repository": name, "commit": git("rev-parse", "HEAD")[0], "file": "", "left_out": "", "lock": False}
    row |= {"stages": 0, "lack": 0, "lack_import": 0, "complete": 0, "unchecked": 0, "why": ""}
    files = [Path(each) for each in git("ls-files") if Path(each).name == "dvc.yaml"]
    if not files:
        return row | {"left_out": "no dvc.yaml"}, []
    path = min(files, key=lambda each: (len(each.parts), each))
    content = read_yaml(path)
    stages = (content.get("stages") if isinstance(content, dict) else None) or {}
    row |= {"file": path, "lock": path.with_name("dvc.lock").exists(), "stages": len(stages)}
    layout = {*stages, *re.findall(r"[\w-]+(?=\.py\b)", path.read_text())}
    if not stages or sum(len(layout & each) >= LIKE * len(layout | each) for each in layouts) >= 2:
        return row | {"left_out": "layout" if stages else "no stages"}, []
    layouts.append(layout)
    try:
        results = check(path)
    except (UserError, ImportError) as error:  # of a remote that is not installed
        return row | {
            "unchecked": len(stages),
            "why": shown(f"not read: {error}".replace(f"{Path.cwd()}/", ""), 150),
        }, []
    whys, findings = set[str](), list[Row]()
    for stage, (missing, _, commands) in results.items():
        written = str(stages[stage].get("do", stages[stage])["cmd"])
        unseen = [each for each in (command.split()[0] for command in commands) if each not in HARMLESS]
        if missing:
            row["lack"] += 1
            row["lack_import"] += any(not re.search(rf"\b{re.escape(Path(each).stem)}\b", written) for each in missing)
            findings.append({"repository": name, "commit": row["commit"], "stage": stage, "file": missing})
        elif unseen or "py" not in written:
            row["unchecked"] += 1
            whys |= {*unseen} or {"no Python"}
        else:
            row["complete"] += 1
    return row | {"why": " ".join(sorted(whys))}, findings


def git(*words: str) -> list[str]:
    """Return the lines that git prints about the working folder."""
    return subprocess.run(["git", *words], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def table(rows: pd.DataFrame) -> list[str]:
    """Return the lines of the table of the page."""
    rows = rows[rows["left_out"] == ""]
    top = rows["file"] == "dvc.yaml"
    groups = {"all": rows, "at the top of a repository": rows[top], "in a folder": rows[~top]}
    groups |= {"with dvc.lock": rows[rows["lock"]], "of 5 stages or more": rows[rows["stages"] >= 5]}
    lines = []
    for title, each in groups.items():
        seen = each[each["lack"] + each["complete"] > 0]
        stages, lack, imports, complete = each[["stages", "lack", "lack_import", "complete"]].sum()
        of = f"{len(each)} | {len(seen)} | {sum(seen['lack'] > 0)} | {sum(seen['lack_import'] > 0)}"
        lines.append(f"| {title} | {of} | {stages} | {lack + complete} | {lack} | {imports} |")
    return lines


def intervals(rows: pd.DataFrame) -> list[str]:
    """Return lines with 95 % intervals of the shares that lack code, over resamplings of the pipelines seen through."""
    seen = rows[rows["lack"] + rows["complete"] > 0]
    drawn = [seen.sample(frac=1, replace=True, random_state=seed) for seed in range(1000)]
    pipelines = [(each["lack"] > 0).mean() for each in drawn]
    stages = [each["lack"].sum() / (each["lack"] + each["complete"]).sum() for each in drawn]
    shares = {"pipelines": pipelines, "stages": stages}
    return [f"{name}: {pd.Series(of).quantile([0.025, 0.975]).round(3).to_list()}" for name, of in shares.items()]


if __name__ == "__main__":
    run(main)
