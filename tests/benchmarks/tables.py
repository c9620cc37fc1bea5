"""A table that comes with automate, made of recorded runs.

python -m tests.benchmarks.tables digits RUNS.jsonl.gz studies/tables

RUNS has a JSON object a line, see `studies.recorded.read_runs`; the first point is the paper's
default, whose config is what all have in common.
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
    given = parser.parse_args(words)
    runs = sorted(read_runs(given.runs), key=lambda run: (run["point"], run["seed"]))
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
