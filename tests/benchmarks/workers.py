"""How a search scales with its workers: replays on made-up curves, in virtual time.

python -m tests.benchmarks.workers [--trials 1000] [--workers 1 10 100 1000]

Each epoch takes about a virtual second. With as many workers as trials every trial is chosen before
any has ended, and no rung has much to compare: more epochs, and a worse pick, are its price.
"""

import argparse
import time

import numpy as np

from automate.printing import say_table
from studies.replay import Policy, Replays
from tests.studies import made_up_curves


def main(words: list[str] | None = None) -> list[list[str]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args(words)
    table = made_up_curves.table(2 * given.trials, 3, epochs=27)
    rows = []
    for workers in given.workers:
        begin = time.process_time()
        with Replays(table) as replays:
            runs = replays.run(
                Policy(), trials=given.trials, workers=workers, repetitions=given.repetitions
            )
        cpu = (time.process_time() - begin) / given.repetitions / given.trials
        epochs = float(np.median([run.epochs for run in runs]))
        seconds = float(np.median([run.seconds for run in runs]))
        rows.append(
            [
                f"{workers:,}",
                f"{seconds:,.0f}",
                f"{float(np.median([run.busy * workers for run in runs])):,.1f}",
                f"{100 * float(np.median([run.busy for run in runs])):.0f} %",
                f"{epochs / given.trials / table.epochs:.2f}",
                f"{100 * float(np.median([run.regret for run in runs])):.2f}",
                f"{1e3 * cpu:.1f}",
            ]
        )
    head = ("workers", "virtual s", "busy workers", "busy", "of all epochs", "regret, points")
    say_table(
        (*head, "ms CPU a trial"), rows, title=f"{given.trials:,} trials, {given.repetitions} times"
    )
    return rows


if __name__ == "__main__":
    main()
