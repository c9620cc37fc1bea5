"""Recorded runs of an experiment's arms as a table, the paper's Table 2 beside it.

python -m tests.benchmarks.record points table2,recipe 11 POINTS.json --dataset cifar100
python -m tests.benchmarks.record runs POINTS.json RUNS.jsonl --purpose reproduce \\
    --data-root FOLDER --device cuda --workers 11 --seeds 1
python -m tests.benchmarks.methods RUNS.jsonl

This is `automate reproduce table2` and `recipe` for a machine with a GPU that has torch and
pydantic alone; all runs share the GPU (`longest` finds how many epochs fit into a time). They train
on all training images and count the test images after every epoch; what is shown is the last one.
"""

import argparse
from pathlib import Path
from typing import Any

from studies.experiment_sections import printed_text
from studies.experiments import Arm, arms_of
from studies.measured import Stat
from studies.paper import paper
from studies.recorded import read_runs


def rows(runs: list[dict[str, Any]]) -> list[list[str]]:
    """A row an arm: label, n, top-1 accuracy of each exit in % (mean ± std), then the paper's."""
    base, exits = runs[0]["config"], max(len(run["accuracy"][-1]) for run in runs)
    arms: dict[str, Arm] = {
        arm.key: arm for name in ("recipe", "table2") for arm in arms_of(name, base)
    }
    made = []
    runs = sorted(runs, key=lambda run: int(run["point"]))  # those of a GPU end in any order
    for key in dict.fromkeys(run["params"]["arm"] for run in runs):
        last = [run["accuracy"][-1] for run in runs if run["params"]["arm"] == key]
        ours = [Stat(tuple(100 * a for a in exit_)).figure for exit_ in zip(*last, strict=True)]
        theirs = paper().column("table2", base.backbone, arms[key].column)
        missing = [""] * (exits - len(ours))  # the baseline has the last exit alone
        made.append([arms[key].label, str(len(last)), *missing, *ours, *map(printed_text, theirs)])
    return made


def main(words: list[str] | None = None) -> list[list[str]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    runs = read_runs(parser.parse_args(words).runs)
    made = rows(runs)
    config, widest = runs[0]["config"], max(map(len, made))
    print(
        f"{config.backbone} x{config.width:g} on {Path(config.dataset).name}, {config.epochs} "
        f"epochs, {config.precision}: top-1 accuracy in %, ours and then the paper's"
    )
    for row in made:
        print("| " + " | ".join([*row, *[""] * (widest - len(row))]) + " |")
    return made


if __name__ == "__main__":
    main()
