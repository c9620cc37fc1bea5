"""A table that comes with automate, made of recorded runs.

python -m tests.benchmarks.tables digits RUNS.jsonl.gz studies/tables

RUNS has a JSON object a line, see `studies.recorded.read_runs`; the first point is the paper's
default, whose config is what all have in common. With --plain, of runs that were recorded with a
moving average of the weights, the accuracies are those of the plain network.
"""

import argparse
from pathlib import Path

from studies.curve_tables import CurveTable
from studies.recorded import made_of_runs, read_runs


def main(words: list[str] | None = None) -> CurveTable:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("runs", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--space", default="diverse_alpha")
    parser.add_argument("--plain", action="store_true")
    given = parser.parse_args(words)
    runs = sorted(read_runs(given.runs), key=lambda run: (run["point"], run["seed"]))
    if given.plain:
        runs = [
            {
                **run,
                "accuracy": run.get("raw") or run["accuracy"],
                "config": run["config"].with_(ema=0),
            }
            for run in runs
        ]
    base = runs[0]["config"].with_(seed=0, split_seed=0)
    table = made_of_runs(given.name, given.space, base, runs)
    path = table.write(given.folder / f"{given.name}.npz")
    configs, seeds, epochs, exits = table.accuracy.shape
    print(
        f"{path}: {configs} configs, {seeds} seeds, {epochs} epochs, {exits} exits, "
        f"{table.images} images, {path.stat().st_size / 1e3:.0f} kB"
    )
    return table


if __name__ == "__main__":
    main()
