"""A confirmation for machines: the verdict's numbers and sentences as plain JSON."""

from __future__ import annotations

import math
from typing import Any

from studies.comparison import Difference
from studies.conclusions import NOTE, sentences, unit
from studies.confirmation import Confirmation
from studies.confirmed import Estimate, Judgement, Optimism
from studies.resampling import DRAWS


def as_json(c: Confirmation) -> dict[str, Any]:
    """The same for machines: % and points of accuracy, plain numbers of the hypervolume."""
    judged, tested = c.judged, c.tested
    found: dict[str, Any] = {
        "study": c.plan.study,
        "search": c.plan.confirms,
        "objective": c.plan.objective,
        "unit": "points of accuracy" if unit(c) else "share of the box",
        "over": c.over,
        "outdated": c.outdated,
        "race": {"rounds": list(c.plan.race or ()), "runs": c.runs, "failed": c.failed},
        "seeds": [c.plan.base.seed + k for k in range(c.values.shape[1])],
        "split_seeds": [c.plan.base.split_seed + k for k in range(c.values.shape[1])],
        "sentences": sentences(c),
        "how_to_read": NOTE,
        "test_read_after_seeds": list(c.readings),
        "exits_drawn": None if judged is None else _drawn(c),
        "verdict": None if judged is None else _verdict(judged),
        "chosen": None if judged is None else c.rows[judged.chosen].name,
        "candidates": [],
    }
    for row, one in enumerate(c.rows):
        entry: dict[str, Any] = {
            "name": one.name,
            "trial": one.trial,
            "config": one.config.model_dump(mode="json"),
            "search_said": None if one.said is None else (100 if unit(c) else 1) * one.said,
            "rounds": c.rounds[row],
            "values": _plain(c.values[row]),
            "exits": [_plain(run) for run in c.exits[row]],
        }
        if judged is not None:
            entry |= {
                "finalist": row in judged.finalists,
                "mean": _estimate(judged.means[row]),
                "expected": judged.expected[row],
                "exit_means": [_estimate(mean) for mean in c.points.means[row]],
                "difference": _difference(judged.difference(row)),
                "on_front": _plain(c.points.on_front[row]),
            }
            if tested is not None and row in judged.finalists:
                place = judged.finalists.index(row)
                entry["test"] = {
                    "mean": _estimate(tested.means[place]),
                    "exit_means": [_estimate(mean) for mean in c.test_points.means[place]],
                    "difference": _difference(tested.difference(place)),
                }
        found["candidates"].append(entry)
    return found


def take_json(c: Confirmation) -> dict[str, Any] | None:
    """The config to take; None before the race is over. Accuracy is a fraction, as of a trial."""
    if c.judged is None:
        return None
    row, mean = c.rows[c.judged.chosen], c.judged.means[c.judged.chosen]
    scale = 100 if unit(c) else 1
    return {
        "number": row.trial,
        "name": row.name,
        "config": row.config.model_dump(mode="json"),
        "value": mean.mean / scale,
        "low": _finite(mean.low / scale),
        "high": _finite(mean.high / scale),
        "n": mean.n,
    }


def _drawn(c: Confirmation) -> dict[str, Any]:
    """What the intervals of exits and `on_front` come from."""
    return {"draws": DRAWS, "seeds": True, "images": c.points.images}


def _verdict(judged: Judgement) -> dict[str, Any]:
    return {
        "separated": [one.config for one in judged.separated],
        "finalists": list(judged.finalists),
        "best": judged.best,
        "chosen": judged.chosen,
        "within_one_standard_error": list(judged.within),
        "run_to_run": _finite(judged.sigma),
        "found_4_times_in_5": judged.detectable,
        "optimism_of_best": _optimism(judged.naive),
        "optimism_on_average": _optimism(judged.average),
        "optimism_of_default": _optimism(judged.default),
    }


def _optimism(one: Optimism | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "row": one.row,
        "said": one.said,
        "confirmed": _estimate(one.confirmed),
        "gap": one.gap,
        "low": _finite(one.low),
        "high": _finite(one.high),
    }


def _estimate(one: Estimate) -> dict[str, Any]:
    return {"mean": one.mean, "low": _finite(one.low), "high": _finite(one.high), "n": one.n}


def _difference(one: Difference | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "difference": one.difference,
        "low": _finite(one.low),
        "high": _finite(one.high),
        "p": one.p,
        "seeds_needed": one.seeds_needed,
    }


def _plain(values: Any) -> list[float | None]:
    return [_finite(float(value)) for value in values]


def _finite(value: float) -> float | None:
    """A number, or None where JSON has none for it."""
    return value if math.isfinite(value) else None
