"""Who is confirmed, in which order of simplicity, and the race as a study's trials: pure functions.

A confirmation of C configs in S rounds is a study of C x S trials: the round's number times C plus
the row. All are there from the beginning, so any number of drivers run exactly these. A trial of a
round is given out once all that ran in the rounds before have ended, or with them if nobody leaves
in between; one whose config has left the race is ended as PRUNED without a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search_spaces import Point, Space
from studies import racing
from studies.plan import MOST_SEEDS, Finalist, StudyPlan
from studies.verdict import recommended_first, reference, reference_name
from trainers.config import TrialConfig
from trainers.schemes import SCHEMES, scheme_named

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from studies.states import Outcome

# What tells two runs of one config apart, or only how they are computed.
NO_SETTING = {"schema_version", "seed", "split_seed", "precision"}


def finalists(outcomes: Sequence[Outcome], base: TrialConfig, top: int) -> tuple[Finalist, ...]:
    """The paper's default, then the best of a search in its recommended order.

    Args:
        outcomes: Of the search; only trials of full length are candidates.
        base: Of the search, for a default that it never ran to its end.
        top: Candidates beside the default, at most. Equal configs count once.
    """
    default = reference(outcomes)
    if default is None:  # it broke, or has not come to its end
        begun = (o for o in outcomes if o.start and o.config is not None)
        first = next(begun, None)
        config = base if first is None or first.config is None else first.config
        rows = [Finalist(name="the starting point", trial=first and first.number, config=config,
                         said=None)]  # fmt: skip
    else:
        rows = [_finalist(default, reference_name(default))]
    for outcome in recommended_first(outcomes):
        if len(rows) > top:
            break
        if outcome.config is not None and all(not same(outcome.config, r.config) for r in rows):
            rows.append(_finalist(outcome, f"trial {outcome.number}"))
    return tuple(rows)


def _finalist(outcome: Outcome, name: str) -> Finalist:
    assert outcome.config is not None and outcome.report is not None
    return Finalist(
        name=name,
        trial=outcome.number,
        config=outcome.config,
        said=outcome.value,
        accuracies=outcome.report.accuracies,
    )


def same(one: TrialConfig, other: TrialConfig) -> bool:
    """Whether two configs differ in nothing but seeds and precision."""
    return not away(one, other)


def away(config: TrialConfig, default: TrialConfig) -> list[str]:
    """The settings in which a config differs from the default, if its scheme reads them."""
    reads = {*scheme_named(config.scheme).reads, *scheme_named(default.scheme).reads}
    unread = {name for scheme in SCHEMES.values() for name in scheme.reads} - reads
    return [
        name
        for name in TrialConfig.model_fields
        if name not in NO_SETTING | unread and _value(config, name) != _value(default, name)
    ]


def _value(config: TrialConfig, name: str) -> object:
    """A field, one value or M alike."""
    if name == "alpha":
        return config.alpha_per_exit()
    if name == "alpha_teacher":  # None where it is the same as alpha
        own = config.alpha_teacher_per_exit()
        return None if own == config.alpha_per_exit() else own
    return getattr(config, name)


def simplicity(rows: Sequence[Finalist]) -> list[int]:
    """The rank of each row, 0 the simplest.

    The default (the first row) comes first; then fewer distinct α, then a mix that nothing learns
    before a weight network, then fewer settings away from the default, then the search's order.
    """

    def key(row: int) -> tuple[int, int, int, int, int]:
        config, default = rows[row].config, rows[0].config
        scheme = scheme_named(config.scheme)
        alphas = len({*config.alpha_per_exit()}) if scheme.alpha else 0
        if scheme.alpha and config.alpha_teacher is not None:
            alphas += len({*config.alpha_teacher_per_exit()} - {*config.alpha_per_exit()})
        return (row > 0, alphas, scheme.learned, len(away(config, default)), row)

    order = sorted(range(len(rows)), key=key)
    return [order.index(row) for row in range(len(rows))]


def race_space(plan: StudyPlan) -> Space:
    """The trials of a confirmation: every row with the first fresh seed, then with the next one.

    The plan's base has the first fresh `seed` and `split_seed`; both count up with the rounds.
    """
    assert plan.finalists is not None and plan.race is not None
    configs = {row.name: row.config for row in plan.finalists}
    first, split, rounds = plan.base.seed, plan.base.split_seed, len(plan.race)

    def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
        config = configs[trial.suggest_categorical("candidate", list(configs))]
        seed = trial.suggest_int("seed", first, first + MOST_SEEDS - 1)
        fresh = {"seed": seed, "split_seed": split + seed - first}
        return config.with_(**fresh, precision=base.precision)

    def grid(base: TrialConfig) -> list[Point]:
        return [{"candidate": name, "seed": first + k} for k in range(rounds) for name in configs]

    title = f"the best of {plan.confirms} and the paper's default on fresh seeds and hold-outs"
    return Space(plan.space, title, lambda base: [], suggest, grid)


def settled_rounds(
    plan: StudyPlan, values: NDArray[np.float64], ended: NDArray[np.bool_]
) -> list[list[int]]:
    """The rows of each round, as far as it is settled.

    Args:
        plan: Of a confirmation.
        values: (trials,) objective of each, NaN where it has none (yet).
        ended: (trials,) whether it has ended.
    """
    assert plan.finalists is not None and plan.race is not None
    shape = (len(plan.race), len(plan.finalists))
    return racing.field(values.reshape(shape).T, ended.reshape(shape).T, plan.race)


def left_text(plan: StudyPlan, number: int) -> str:
    """Why a trial of a config that has left the race is not run."""
    assert plan.finalists is not None and plan.race is not None
    this = number // len(plan.finalists)
    return (
        f"left the race before round {this + 1}: not among the best {plan.race[this]} of the "
        "rounds before"
    )
