"""A trained run on the test set: what each exit is worth, alone, in time and within a budget.

evaluation = evaluate(Path("runs/digits-cnn4-diverse_alpha/best/1-0f3a..."))
print(evaluation.over_runs(lambda run: run.top1))

The thresholds of dynamic inference come from the hold-out, which only some runs leave untrained
(`automate train --keep-validation`; digits always); without it there is no budget curve.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from trainers import dynamic, quality, sources
from trainers.catalog import InputError, is_path
from trainers.config import TrialConfig
from trainers.devices import check_threads, settled_device
from trainers.dynamic import Curve, Floats

if TYPE_CHECKING:
    from trainers.costs import ExitCost
    from trainers.trained import Answers, Trained

GRID = 101  # costs at which the curves of several runs are averaged


class Spread(NamedTuple):
    """Mean and sample standard deviation over n runs; the deviation of one run is NaN."""

    mean: Floats
    std: Floats
    n: int

    def as_json(self) -> dict[str, Any]:
        """Plain numbers; None for what one run cannot tell."""
        std = None if self.n == 1 else self.std.tolist()
        return {"mean": self.mean.tolist(), "std": std, "n": self.n}


def spread(values: Sequence[ArrayLike]) -> Spread:
    """Over runs: a number or an array of each."""
    table = np.array(values, dtype=np.float64)
    n = len(table)
    std = table.std(axis=0, ddof=1) if n > 1 else np.full_like(table[0], math.nan)
    return Spread(table.mean(axis=0), std, n)


@dataclass(frozen=True, eq=False)
class RunScores:
    """One run on the test images. M exits, N teachers.

    Attributes:
        folder: Of the run.
        seed: That it was trained with.
        top1, top5: (M,), fractions.
        ensembles: (M,), accuracy of the mean of the softmaxes of exits 1..k.
        teachers: (N,), accuracy of each teacher; None if the file does not hold them.
        reliability: Confidence against accuracy, per exit.
        overthinking, oracle: See `trainers.quality`.
        budget: Dynamic inference; None without held-out images, or with one exit.
    """

    folder: Path
    seed: int
    top1: Floats
    top5: Floats
    ensembles: Floats
    teachers: Floats | None
    reliability: quality.Reliability
    overthinking: quality.Overthinking
    oracle: quality.Oracle
    budget: Curve | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One run, or all seeds of one config, on the test images.

    Attributes:
        folder: That was evaluated.
        config: Of the runs, which differ in `seed` alone.
        costs: Of the exits.
        images: Number of test images.
        held: Number of held-out images that set the thresholds; 0 without a budget curve.
        no_thresholds: Why there is none; None if there is.
        budgets: FLOPs at which the budget curve is read.
        runs: By seed.
    """

    folder: Path
    config: TrialConfig
    costs: tuple["ExitCost", ...]
    images: int
    held: int
    no_thresholds: str | None
    budgets: tuple[float, ...]
    runs: tuple[RunScores, ...]

    def over_runs(self, what: Callable[[RunScores], ArrayLike]) -> Spread:
        """Something of each run, as mean and spread over the runs."""
        return spread([what(run) for run in self.runs])

    def errors(self) -> Spread:
        """(M,) expected calibration error."""
        return self.over_runs(lambda run: quality.calibration_error(run.reliability))

    def teachers(self) -> Spread | None:
        """(N,) accuracy of the teachers; None if some run's are not known, or there is none."""
        known = [run.teachers for run in self.runs if run.teachers is not None]
        return spread(known) if len(known) == len(self.runs) and len(known[0]) else None

    def budget(self, flops: Sequence[float] | Floats) -> tuple[Spread, Spread, Spread] | None:
        """Top-1 (Q,), top-5 (Q,) and shares by exit (Q, M) at Q costs; None without thresholds."""
        curves = [dynamic.along(run.budget, flops) for run in self.runs if run.budget is not None]
        if not curves:
            return None
        return (
            spread([curve.top1 for curve in curves]),
            spread([curve.top5 for curve in curves]),
            spread([curve.shares for curve in curves]),
        )

    def grid(self) -> Floats:
        """Costs from the first exit's to the last's, evenly."""
        return np.linspace(self.costs[0].flops_cascade, self.costs[-1].flops_cascade, GRID)

    def note(self) -> str | None:
        """Why there is no budget curve; None if there is one."""
        return self.no_thresholds and f"No budget curve: {self.no_thresholds}."

    def as_json(self) -> dict[str, Any]:
        """All figures as plain numbers; fractions, FLOPs per image."""
        at_budgets = self.budget(self.budgets)
        teachers = self.teachers()
        found: dict[str, Any] = {
            "folder": str(self.folder),
            "config": self.config.model_dump(mode="json"),
            "split": "test",
            "images": self.images,
            "held_out_images": self.held,
            "seeds": [run.seed for run in self.runs],
            "flops": [cost.flops for cost in self.costs],
            "flops_cascade": [cost.flops_cascade for cost in self.costs],
            "note": self.note(),
            "teachers": None if teachers is None else teachers.as_json(),
            "calibration_error": self.errors().as_json(),
        }
        several: dict[str, Callable[[RunScores], ArrayLike]] = {
            "top1": lambda run: run.top1,
            "top5": lambda run: run.top5,
            "anytime": lambda run: quality.anytime(run.top1.tolist()),
            "ensembles": lambda run: run.ensembles,
            "destructive": lambda run: run.overthinking.destructive,
            "wasteful": lambda run: run.overthinking.wasteful,
            "destructive_by_exit": lambda run: run.overthinking.by_exit,
            "oracle_accuracy": lambda run: run.oracle.accuracy,
            "oracle_flops": lambda run: run.oracle.flops,
            "oracle_shares": lambda run: run.oracle.shares,
        }
        found |= {name: self.over_runs(what).as_json() for name, what in several.items()}
        found["budget"] = None
        if at_budgets is not None:
            names = ("top1", "top5", "shares")
            read = {n: s.as_json() for n, s in zip(names, at_budgets, strict=True)}
            found["budget"] = {"flops": list(self.budgets), **read}
        return found


def evaluate(
    path: str | Path,
    *,
    budgets: Sequence[float] | None = None,
    data_root: str | Path | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> Evaluation:
    """Evaluates a trained run, or every seed below a folder. Reads the test images.

    Args:
        path: A folder with `weights.pt`, or one with folders `seed-1`, `seed-2`, ... of those.
        budgets: FLOPs per image (cascade) to read the budget curve at; if not given those of the
            exits, and half-way between.
        data_root: Where the data set, or the folder of images, lies; where it lay in training if
            not given.
        device: "cpu" or "cuda"; CUDA where there is one if not given.
        threads: CPU threads; all cores if not given.

    Raises:
        InputError: No trained run there, runs of different configs, missing or other data, a
            budget that the network cannot spend.
    """
    import torch

    from trainers.data import only_test
    from trainers.trained import load as load_trained

    folder, folders = runs_in(Path(path))
    check_threads(threads)
    device = settled_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    networks = [load_trained(run) for run in folders]
    first = networks[0]
    _agree(folders, networks)
    spent = [cost.flops_cascade for cost in first.exits]
    wanted = tuple(
        dynamic.checked_cost(flops, spent[0], spent[-1])
        for flops in (_usual(spent) if budgets is None else budgets)
    )
    root = data_root if data_root is not None else first.data_root
    config = first.config
    if data_root is not None and is_path(config.dataset):  # a tree that lies elsewhere now
        config = config.with_(dataset=str(sources.data_root(data_root)))
    images = only_test(config, root)
    if images.classes != first.classes:
        raise InputError(
            f"the test images have other classes than {folders[0]} was trained on: point "
            "--data-root at the data of that run"
        )
    reason, held = first.no_thresholds(), first.confidence
    scored = [
        _scores(run, network, network.answers(images, device), spent)
        for run, network in zip(folders, networks, strict=True)
    ]
    return Evaluation(
        folder=folder,
        config=first.config,
        costs=first.exits,
        images=len(images),
        held=0 if reason or held is None else held.shape[1],
        no_thresholds=reason,
        budgets=wanted,
        runs=tuple(scored),
    )


def runs_in(path: Path) -> tuple[Path, list[Path]]:
    """What was asked for, and the folders of its trained runs by seed.

    Args:
        path: Of one run, of its weights file, or of a folder with runs.

    Raises:
        InputError: There is none.
    """
    weights = "weights.pt"  # trainers.trained.FILE, which needs torch
    path = path.parent if path.name == weights else path
    if (path / weights).is_file():
        return path, [path]
    found = [file.parent for file in path.glob(f"seed-*/{weights}")]
    if not found:
        what = "has no trained run" if path.is_dir() else "is no folder of a trained run"
        raise InputError(
            f"{str(path)!r} {what}: expected weights.pt, or seed-1/weights.pt, ..., as "
            "`automate train` leaves them in runs/<study>/best/1-<digest>"
        )
    return path, sorted(found, key=lambda run: [int(n) for n in re.findall(r"\d+", run.name)])


def _agree(folders: Sequence[Path], networks: Sequence["Trained"]) -> None:
    """Raises InputError if the runs differ in more than their seed."""
    first = networks[0]
    for run, network in zip(folders, networks, strict=True):
        same = network.config.with_(seed=first.config.seed) == first.config
        if not same or (network.confidence is None) != (first.confidence is None):
            raise InputError(
                f"{run} and {folders[0]} are runs of different configs: evaluate each by itself"
            )


def _usual(spent: Sequence[int]) -> list[float]:
    """The costs of the exits, and half-way between."""
    half = [(low + high) / 2 for low, high in zip(spent, spent[1:], strict=False)]
    return sorted([*map(float, spent), *half])


def _scores(run: Path, network: "Trained", answers: "Answers", spent: list[int]) -> RunScores:
    """Everything about one run, from what its exits say."""
    probabilities, labels = answers.probabilities, answers.labels
    confidence = probabilities.max(axis=-1)
    top1, top5 = quality.hits(probabilities, labels)
    budget, held = None, network.confidence
    if held is not None and network.no_thresholds() is None:
        budget = dynamic.calibrated(held, confidence, top1, top5, spent, dynamic.FINE)
    taught = answers.taught
    return RunScores(
        folder=run,
        seed=network.config.seed,
        top1=top1.mean(axis=1),
        top5=top5.mean(axis=1),
        ensembles=quality.ensembles(probabilities, labels),
        teachers=None if taught is None else (taught == labels).mean(axis=1),
        reliability=quality.reliability(confidence, top1),
        overthinking=quality.overthinking(top1),
        oracle=quality.oracle(top1, spent),
        budget=budget,
    )
