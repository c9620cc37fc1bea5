"""Tables of learning curves made: of a study whose trials ran to their end, or of recorded runs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.comparison import crossed
from studies.curve_tables import DIVERGED, Array, CurveTable, checked
from trainers import catalog
from trainers.catalog import InputError
from trainers.config import TrialConfig

if TYPE_CHECKING:
    from studies.reading import StudyReader

ROUNDED = 6e-7  # what an accuracy of six decimals may be off
MOST_IMAGES = 60_000  # that a count of right ones is looked for with


def table_of(record: StudyReader) -> CurveTable:
    """The table of a study whose trials ran to their end.

    Trials that differ in nothing but their seed are one config's runs. Every config of the table
    has every seed; what is left out where runs are missing: `comparison.crossed`. A calibration is
    such a study of the space that it calibrates.

    Raises:
        InputError: Trials that were stopped early or have not ended, networks that differ in cost,
            or configs that share no seed.
    """
    plan, name = record.plan, record.name
    if plan.experiment is not None:
        raise InputError(
            f"study {name!r} is an experiment of the paper, scored on the test split: a table is "
            "made of a search"
        )
    outcomes = [o for o in record.outcomes() if o.state != "FAIL"]
    stopped = sum(o.state == "PRUNED" and not o.diverged for o in outcomes)
    left = sum(o.state in ("WAITING", "RUNNING") for o in outcomes)
    if stopped:
        raise InputError(
            f"study {name!r} is no table of whole learning curves: {stopped} of its "
            f"{len(outcomes)} trials were stopped early; search once more with --no-early-stopping "
            "--study NAME, and replay that study"
        )
    if left:
        raise InputError(
            f"study {name!r} is no table yet: {left} of its {len(outcomes)} trials have not ended; "
            "the same search command goes on"
        )
    added = {"seed"} if plan.calibrates else set()  # to the space's own parameters
    runs: list[dict[str, Any]] = []
    flops: set[tuple[tuple[int, int], ...]] = set()
    for outcome in outcomes:
        if outcome.config is None:
            continue
        reports = [r for r in record.reports(outcome.number) if r.exits or r.diverged]
        flops |= {tuple((p.flops, p.flops_cascade) for p in r.exits) for r in reports if r.exits}
        runs.append(
            {
                "config": outcome.config,
                "params": {k: x for k, x in outcome.params.items() if k not in added},
                "seed": outcome.config.seed,
                "seconds": [r.seconds for r in reports],
                "accuracy": [list(r.accuracies) for r in reports if not r.diverged],
            }
        )
    if not runs:
        raise InputError(f"study {name!r} has no trial that ran: nothing to replay")
    if len(flops) != 1:
        raise InputError(
            f"study {name!r} has networks that differ in what their exits cost: a table needs one "
            "network"
        )
    space = plan.calibrates or plan.space
    return made_of_runs(name, space, plan.base, runs, next(iter(flops)))


def read_runs(path: str | Path) -> list[dict[str, Any]]:
    """Runs as they were recorded: JSON lines, also gzipped, each with the keys config, params, seed
    (of the run), seconds ([an epoch]) and accuracy ([an epoch][an exit]).

    Raises:
        InputError: A file that cannot be read, or a line that is no run; its number is named.
    """
    path, runs, number = Path(path), [], 0
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                run = json.loads(line)
                missing = {"config", "params", "seed", "seconds", "accuracy"} - set(run)
                if missing:
                    raise InputError(f"{path}, line {number}: {', '.join(sorted(missing))} missing")
                runs.append({**run, "config": TrialConfig.read(run["config"])})
    except InputError:
        raise
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise InputError(f"{path}, after line {number}: {error}") from None
    if not runs:
        raise InputError(f"{path} holds no run")
    return runs


def made_of_runs(
    name: str,
    space: str,
    base: TrialConfig,
    runs: Sequence[Mapping[str, Any]],
    flops: Sequence[tuple[int, int]] | None = None,
) -> CurveTable:
    """A table of recorded runs, of the configs and seeds that `comparison.crossed` keeps.

    Args:
        name: Of the table.
        space: That `params` are points of.
        base: What all configs have in common; where a data set lies is left out of it.
        runs: See `read_runs`. A run of fewer epochs than the base's diverged after them.
        flops: (FLOPs, FLOPs with earlier heads) of each exit; counted if not given, which needs
            torch.

    Raises:
        InputError: Runs of different lengths or exits, or configs that share no seed.
    """
    points: dict[str, int] = {}
    by_config: list[dict[int, Mapping[str, Any]]] = []
    for run in runs:
        key = json.dumps(run["params"], sort_keys=True)
        if key not in points:
            points[key] = len(by_config)
            by_config.append({})
        by_config[points[key]].setdefault(int(run["seed"]), run)
    seeds = sorted({seed for found in by_config for seed in found})
    there = np.array([[seed in found for seed in seeds] for found in by_config])
    rows, columns = crossed(there, least=min(2, len(by_config)))
    if not columns:
        raise InputError(
            f"table {name}: no two of {len(by_config)} configs ran with the same seed, so they "
            "cannot be compared: give their runs one seed"
        )
    names = list(points)
    accuracy = np.full((len(rows), len(columns), base.epochs, base.exits), np.nan)
    seconds = np.zeros(accuracy.shape[:2])
    for config, row in enumerate(rows):
        for place, column in enumerate(columns):
            run = by_config[row][seeds[column]]
            curve = np.asarray(run["accuracy"], dtype=np.float64).reshape(-1, base.exits)
            if len(curve) > base.epochs:
                raise InputError(
                    f"table {name}: a run of {len(curve)} epochs, expected {base.epochs} at most"
                )
            accuracy[config, place, : len(curve)] = curve
            seconds[config, place] = float(np.median(run["seconds"] or [0.0]))
    if flops is None:
        from trainers.costs import costs  # torch

        flops = [(cost.flops, cost.flops_cascade) for cost in costs(base)]
    images = images_of(accuracy)
    if images <= MOST_IMAGES:
        accuracy = np.round(accuracy * images) / images
    if catalog.is_path(base.dataset):
        base = base.with_(dataset=f"./{Path(base.dataset).name}")
    return checked(
        CurveTable(
            name=name,
            space=space,
            base=base,
            params=tuple(json.loads(names[row]) for row in rows),
            accuracy=accuracy,
            seconds=seconds,
            flops=tuple(first for first, _ in flops),
            flops_cascade=tuple(second for _, second in flops),
            images=images,
        )
    )


def images_of(accuracy: Array) -> int:
    """The least number of images of which every accuracy is a whole number, but for rounding to six
    decimals; the most that a file can count where there is none below."""
    fractions = np.unique(accuracy[~np.isnan(accuracy)])
    some = fractions[:: max(1, len(fractions) // 20)]
    for images in range(1, MOST_IMAGES + 1):
        if all(
            np.abs(tried * images - np.round(tried * images)).max(initial=0.0) <= ROUNDED * images
            for tried in (some, fractions)
        ):
            return images
    return DIVERGED - 1
