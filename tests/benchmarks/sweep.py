"""Policies of searching on the tables that come with automate: what the defaults are chosen by.

python -m tests.benchmarks.sweep [TABLE ...] --trials 20 40 [--repetitions 200] [--quick]

Each row: one policy, its regret and epochs beside those of random search at full length with the
same number of trials and the same repetitions. See `studies.replay` on what is replayed.
"""

import argparse
import itertools
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from automate.printing import say_table
from studies import samplers
from studies.curve_tables import CurveTable, read_table, shipped
from studies.plan import default_grace
from studies.policies import RANDOM, difference, middle
from studies.replay import Policy, Replayed, Replays

Job = tuple[str, Policy, int, int, int]  # table, policy, startup trials, trials, repetitions


def policies(epochs: int, quick: bool) -> Iterator[tuple[Policy, int]]:
    """Policies, each with a number of startup trials."""
    third, half = default_grace(epochs), epochs // 2 + 1
    graces = sorted({max(1, epochs // 10), max(1, epochs // 6), third // 2 + 1, third, half})
    yield RANDOM, 10
    for sampler in ("tpe", "random") if quick else ("tpe", "random", "qmc"):
        if sampler != "random":
            yield Policy(sampler, early_stopping=False), 10
        for grace, eta in itertools.product(graces, (2, 3) if quick else (2, 3, 4)):
            if not quick or sampler == "tpe" or (grace, eta) in ((graces[0], 3), (third, 2)):
                yield Policy(sampler, eta=eta, grace=grace), 10
    for startup in (5, 20):
        yield Policy(grace=third), startup
    for grace in (third // 2 + 1, third):
        for tolerance in (0.005,) if quick else (0.0025, 0.005, 0.01):
            yield Policy(grace=grace, tolerance=tolerance), 10


def run(job: Job) -> list[Replayed]:
    name, policy, startup, trials, repetitions = job
    samplers.STARTUP = startup
    with Replays(_table(name)) as replays:
        return replays.run(policy, trials=trials, repetitions=repetitions)


_tables: dict[str, CurveTable] = {}


def _table(name: str) -> CurveTable:
    if name not in _tables:
        _tables[name] = read_table(name)
    return _tables[name]


def text(policy: Policy, startup: int, epochs: int) -> str:
    from studies.policies import policy_text

    return policy_text(policy, epochs) + (f", startup {startup}" if startup != 10 else "")


def main(words: list[str] | None = None) -> list[dict[str, object]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=shipped())
    parser.add_argument("--trials", type=int, nargs="+", default=[20])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    rows: list[dict[str, object]] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.processes, context) as pool:
        for name, trials in itertools.product(given.tables, given.trials):
            epochs = _table(name).epochs
            some = list(policies(epochs, given.quick))
            jobs = [(name, policy, startup, trials, given.repetitions) for policy, startup in some]
            rows += _shown(name, trials, some, list(pool.map(run, jobs)))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return rows


def _shown(
    name: str, trials: int, some: list[tuple[Policy, int]], found: list[list[Replayed]]
) -> list[dict[str, object]]:
    table = _table(name)
    chance = [run.regret for run in found[0]]
    rows, cells = [], []
    for (policy, startup), runs in zip(some, found, strict=True):
        regrets = [run.regret for run in runs]
        regret, gap = middle(regrets), difference(regrets, chance)
        share = float(np.median([run.epochs for run in runs])) / (trials * table.epochs)
        mean = float(np.mean(regrets) - np.mean(chance))
        rows.append(
            {
                "table": name,
                "trials": trials,
                "startup": startup,
                "policy": asdict(policy),
                "regret": asdict(regret),
                "against_random": asdict(gap),
                "mean_against_random": mean,
                "share_of_epochs": share,
            }
        )
        cells.append(
            (
                text(policy, startup, table.epochs),
                f"{100 * regret.median:.2f} ({100 * regret.low:.2f} to {100 * regret.high:.2f})",
                f"{100 * gap.median:+.2f} ({100 * gap.low:+.2f} to {100 * gap.high:+.2f})",
                f"{100 * mean:+.2f}",
                f"{share:.2f}",
            )
        )
    head = ("policy", "regret, points", "median against random", "mean against", "of all epochs")
    title = f"{name}, {trials} trials, {len(found[0])} repetitions"
    say_table(head, cells, title=title)
    return rows


if __name__ == "__main__":
    main()
