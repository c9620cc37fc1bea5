"""Policies of searching beside each other, replayed on one table: medians with their intervals.

All policies see the same repetitions: the same sampler seeds and the same columns of the table. The
intervals are over repetitions (percentile bootstrap of the median), so they say how well the
replays know the table, not what another network or data set would say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from studies.curve_tables import CurveTable
from studies.plan import settled_grace
from studies.replay import Policy, Replayed, Replays
from studies.verdict import signed

DRAWS = 2_000  # of the bootstrap
LEVEL = 0.95
RANDOM = Policy(sampler="random", early_stopping=False)


@dataclass(frozen=True)
class Middle:
    """A median with its interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One policy with one number of workers.

    Attributes:
        policy: How it searches.
        workers: That train at a time.
        runs: The repetitions, in their order.
    """

    policy: Policy
    workers: int
    runs: tuple[Replayed, ...]

    def middle(self, what: str) -> Middle:
        """The median of a field of `Replayed`, e.g. "regret"."""
        return middle([getattr(run, what) for run in self.runs])


def _draws(count: int) -> np.ndarray:
    """(DRAWS, count), repetitions drawn with replacement: the same ones for all policies."""
    return np.random.default_rng(0).integers(0, count, (DRAWS, count))


def middle(values: Sequence[float]) -> Middle:
    """The median with its bootstrap interval."""
    found = np.asarray(values, dtype=np.float64)
    medians = np.median(found[_draws(len(found))], axis=1)
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Middle(float(np.median(found)), float(low), float(high))


def difference(one: Sequence[float], other: Sequence[float]) -> Middle:
    """The median of one minus that of the other, resampled together."""
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    draws = _draws(len(first))
    medians = np.median(first[draws], axis=1) - np.median(second[draws], axis=1)
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Middle(float(np.median(first) - np.median(second)), float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """A policy, at each number of workers, and what it is compared with, at the first of these.

    Attributes:
        table: That they were replayed on.
        trials: Of each search.
        rows: The policy's, one a number of workers.
        unstopped: The same sampler without stopping; None where the policy itself stops nothing.
        random: Random search at full length; None where the policy itself is that.
    """

    table: CurveTable
    trials: int
    rows: tuple[Row, ...]
    unstopped: Row | None
    random: Row | None

    @property
    def all_rows(self) -> list[Row]:
        """The policy's rows, then what it is compared with."""
        return [*self.rows, *(row for row in (self.unstopped, self.random) if row is not None)]

    @property
    def full(self) -> int:
        """Epochs of all trials at full length."""
        return self.trials * self.table.epochs


def compare(
    table: CurveTable,
    policy: Policy,
    *,
    trials: int,
    workers: Sequence[int] = (1,),
    repetitions: int = 100,
    seed: int = 0,
    processes: int = 1,
    on_row: Callable[[str], None] = lambda name: None,
) -> Comparison:
    """Replays a policy, the same without stopping, and random search at full length.

    Args:
        table, policy, trials, repetitions, seed, processes: See `studies.replay.Replays`.
        workers: One row of the policy each.
        on_row: Called with what is replayed next.

    Raises:
        InputError: Whatever does not fit.
    """

    whole = replace(policy, early_stopping=False, rungs=None)
    chance = replace(RANDOM, objective=policy.objective, budgets=policy.budgets)
    is_random = policy.sampler == "random"
    with Replays(table, processes) as replays:
        for count in workers:
            replays.check(policy, trials, count, repetitions, seed)

        def row(made: Policy, count: int) -> Row:
            on_row(f"{policy_text(made, table.epochs)}, workers: {count}")
            runs = replays.run(
                made, trials=trials, workers=count, repetitions=repetitions, seed=seed
            )
            return Row(made, count, tuple(runs))

        return Comparison(
            table=table,
            trials=trials,
            rows=tuple(row(policy, count) for count in workers),
            unstopped=row(whole, workers[0]) if policy.early_stopping and not is_random else None,
            random=row(chance, workers[0]) if policy.early_stopping or not is_random else None,
        )


def policy_text(policy: Policy, epochs: int) -> str:
    """`tpe, eta 2, grace 10, tolerance 0.005`, `tpe, eta 2, rungs 16 23`, `random, full length`."""
    if not policy.early_stopping:
        return f"{policy.sampler}, full length"
    when = f"grace {settled_grace(policy.grace, policy.rungs, epochs)}"
    if policy.rungs is not None:
        when = f"rungs {' '.join(str(rung) for rung in policy.rungs)}"
    text = f"{policy.sampler}, eta {policy.eta}, {when}"
    return text + (f", tolerance {policy.tolerance:g}" if policy.tolerance else "")


def points_text(found: Middle) -> str:
    """`0.22 (0.15 to 0.30)`, of a fraction, in points."""
    return f"{100 * found.median:.2f} ({100 * found.low:.2f} to {100 * found.high:.2f})"


def sentences(found: Comparison) -> str:
    """What the replays say, for someone who knows no statistics."""
    row, chance = found.rows[0], found.random
    table, n = found.table, len(row.runs)
    name = policy_text(row.policy, table.epochs)
    regret, epochs = row.middle("regret"), row.middle("epochs")
    text = (
        f"Searching {found.trials} of the table's {table.configs} configs with {name} picks one "
        f"that is {points_text(regret)} points below the best there is, and trains "
        f"{epochs.median:,.0f} epochs of the {found.full:,} of all trials at full length "
        f"({100 * epochs.median / found.full:.0f} %; medians of {n} replayed searches, with the "
        f"range that {100 * LEVEL:.0f} % of resampled ones fall in)."
    )
    if chance is not None:
        text += f" Random search at full length: {points_text(chance.middle('regret'))} points"
        text += f", {chance.middle('epochs').median:,.0f} epochs. {_against(row, chance)}"
    optimism = row.middle("optimism")
    run, between = table.spreads(row.policy.objective, row.policy.budgets)
    if table.seeds == 1:
        text += (
            " The table has one run of each config, which is what the search sees and what it is "
            "judged by: luck is not counted."
        )
    else:
        text += (
            f" What a search says of its pick is {signed(100 * optimism.median)} points "
            f"({signed(100 * optimism.low)} to {signed(100 * optimism.high)}) above the truth, the "
            f"mean of that config's other runs ({table.seeds - 1}). On this table one run "
            f"scatters by {100 * run:.2f} points about its config, and the configs by "
            f"{100 * between:.2f} about each other"
            + (": most of what a search sees is luck." if between < run else ".")
        )
    return text


def _against(row: Row, chance: Row) -> str:
    gap = difference([r.regret for r in row.runs], [r.regret for r in chance.runs])
    share = row.middle("epochs").median / chance.middle("epochs").median
    cost = f"at {share:.2f} of its epochs"
    if gap.high < 0:
        return f"So this policy picks better than random search {cost}."
    if gap.low > 0:
        return f"So this policy picks worse than random search {cost}."
    return (
        f"These replays cannot tell whether this policy picks better or worse than random search, "
        f"{cost} (difference {signed(100 * gap.median)} points, {signed(100 * gap.low)} to "
        f"{signed(100 * gap.high)})."
    )


def as_json(found: Comparison) -> dict[str, Any]:
    """Everything for machines; accuracies and regrets are fractions, times seconds."""

    def one(row: Row) -> dict[str, Any]:
        fields = ("regret", "optimism", "true", "epochs", "seconds", "busy", "stopped")
        return {
            "policy": asdict(row.policy),
            "workers": row.workers,
            "repetitions": len(row.runs),
            **{name: asdict(row.middle(name)) for name in fields},
            "share_of_full_epochs": row.middle("epochs").median / found.full,
        }

    table = found.table
    run, between = table.spreads(found.rows[0].policy.objective, found.rows[0].policy.budgets)
    return {
        "table": {
            "name": table.name,
            "space": table.space,
            "configs": table.configs,
            "seeds": table.seeds,
            "epochs": table.epochs,
            "images": table.images,
            "run_spread": _finite(run),
            "config_spread": _finite(between),
            "base": table.base.model_dump(mode="json"),
        },
        "trials": found.trials,
        "rows": [one(row) for row in found.rows],
        "without_stopping": None if found.unstopped is None else one(found.unstopped),
        "random_full_length": None if found.random is None else one(found.random),
        "verdict": sentences(found),
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
