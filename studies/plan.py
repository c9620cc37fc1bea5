"""StudyPlan: what a search was asked to do, stored with the study and kept when it goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from trainers import catalog, places
from trainers.catalog import InputError
from trainers.config import TrialConfig, one_line
from trainers.own import FILES, file_digest
from trainers.reports import Record

SAMPLERS = {
    "tpe": "tree-structured Parzen estimator (default); of a study with more than 500 ended "
    "trials it sees the best 25 and the newest",
    "random": "independent random points",
    "grid": "every point of the space's grid (where the space gives one)",
    "qmc": "quasi-Monte Carlo (scrambled Sobol)",
    "gp": "Gaussian process with expected improvement",
}
OBJECTIVES = {
    "anytime": "mean over exits of the best accuracy at that cost or less (default)",
    "mean": "mean accuracy of the exits",
    "last": "accuracy of the deepest exit",
    "exit:K": "accuracy of exit K, e.g. exit:2",
    "budget:F": "accuracy of dynamic inference at F FLOPs, e.g. budget:150M",
    "hypervolume": "area under the front over log FLOPs (where the backbone or width varies)",
    "front": "each exit's accuracy by itself (and the FLOPs, where the backbone or width varies)",
}
# `front` as a plan stores it: of networks that cost the same, and of networks that do not.
FRONT, FRONT_FLOPS = "front", "front+flops"
# Objectives that see no difference in cost between networks: they only ever ask for the largest.
COST_BLIND = ("anytime", "mean", "last", "exit")
MOST_SEEDS = 10_000  # that the grid of an experiment, a calibration or a confirmation may name
# A study's space is "reproduce:table2" where it runs an experiment of the paper, and "confirm:X"
# where it confirms what the search X found.
EXPERIMENT, CONFIRM = "reproduce:", "confirm:"
# And "calibrate:diverse_alpha" where it measures when stopping is right in that space.
CALIBRATION = "calibrate:"
IMAGES = "images"  # among a plan's digests
NO_RUNGS = "without early stopping there are no rungs: leave out rungs, or stop early"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")


def checked_study_name(name: str) -> str:
    """The name, if it can be a folder's and a study's name. Raises InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"study name {name[:60]!r} cannot be used: take 1 to 100 letters, digits, "
            "'_', '-', '+' or '.', starting with a letter or digit"
        )
    return name


def found_digests(base: TrialConfig, space: str) -> dict[str, str] | None:
    """What a plan's `digests` are of the files as they are now; None without files."""
    found = {**base.digests, "space": file_digest(space), IMAGES: found_images(base)}
    return {kind: digest for kind, digest in found.items() if digest is not None} or None


def found_images(base: TrialConfig) -> str | None:
    """The digest of the training images of a folder of the user's; None of a named data set."""
    if not catalog.is_path(base.dataset):
        return None
    from trainers.folders import images_digest  # numpy, which the command line starts without

    return images_digest(base.dataset)


def objective_key(objective: str) -> str:
    """Where `OBJECTIVES` tells of it: `exit:K` of `exit:2`, `budget:F` of `budget:150M`."""
    if is_front(objective):
        return FRONT
    kind, colon, _ = objective.partition(":")
    return {"exit": "exit:K", "budget": "budget:F"}[kind] if colon else objective


def is_front(objective: str) -> bool:
    """Whether it is several objectives, which put trials in no order."""
    return objective in (FRONT, FRONT_FLOPS)


def ranked_by(objective: str) -> str:
    """The objective that orders trials where an order is needed: itself, if it is one number.

    A front's trials are ordered by anytime accuracy, or by the hypervolume where networks differ in
    cost: the anytime accuracy would always prefer the largest.
    """
    return {FRONT: "anytime", FRONT_FLOPS: "hypervolume"}.get(objective, objective)


def default_study_name(base: TrialConfig, space: str) -> str:
    """`<dataset>-<backbone>-<space>`; of a path only the last part's stem."""

    def short(name: str) -> str:
        stem = Path(name).stem if catalog.is_path(name) else name
        return re.sub(r"[^A-Za-z0-9_.+]+", "_", stem).strip("._") or "custom"

    return checked_study_name(f"{short(base.dataset)}-{short(base.backbone)}-{short(space)}"[:100])


def default_grace(epochs: int) -> int:
    """Epochs before the first rung where nothing is said: a third of the full length."""
    return max(1, epochs // 3)


def settled_grace(grace: int | None, rungs: Sequence[int] | None, epochs: int) -> int:
    """Epochs before the first rung: what is asked for, the first of the given rungs, or a third.

    Args:
        grace: None if it is not asked for.
        rungs: The epochs after which trials are judged; None if they are not given.
        epochs: Full length of a trial.

    Raises:
        InputError: Rungs that do not rise or lie beyond the run, or a grace that contradicts them.
    """
    if rungs is not None:
        listed = " ".join(str(rung) for rung in rungs)
        ends = (0, *rungs, epochs)
        if not rungs or any(here >= there for here, there in zip(ends, ends[1:], strict=False)):
            raise InputError(
                f"rungs need to rise from 1 or more to less than the {epochs} epochs, as in "
                f"16,23, got {listed or 'none'}"
            )
        if grace not in (None, rungs[0]):
            raise InputError(
                f"grace {grace} contradicts rungs {listed}, the first of which is after epoch "
                f"{rungs[0]}: leave out one of the two"
            )
        return rungs[0]
    grace = default_grace(epochs) if grace is None else grace
    if not 1 <= grace <= epochs:
        raise InputError(f"grace needs to be from 1 to the {epochs} epochs, got {grace}")
    return grace


class Finalist(Record):
    """One config that is confirmed.

    The first of a confirmation is what the others are compared with: the paper's default.
    """

    name: str = Field(description="for people: `trial 14`, `the paper's default`")
    trial: int | None = Field(description="of the search; None of a config that it never ran")
    config: TrialConfig
    said: float | None = Field(description="the objective as the search saw it, one run")
    accuracies: tuple[float, ...] = Field((), description="of each exit, likewise")


class StudyPlan(Record):
    """One search: where it is, what it tries, when it stops a trial, and what runs it.

    Everything is settled here before the first trial: no field is "automatic" any more.
    """

    study: str = Field(description="name of the study")
    space: str = Field(description="a search space's name, or a Python file of your own")
    base: TrialConfig = Field(description="what every trial has in common")
    data_root: str | None = Field(None, description="where the data set lies")
    trials: int = Field(ge=1, description="the study's total number of trials")
    sampler: Literal["tpe", "random", "grid", "qmc", "gp"] = "tpe"
    objective: str = Field("anytime", description="what is maximised")
    budgets: tuple[float, ...] | None = Field(
        None, description="weight of each exit in the anytime accuracy (none: equal)"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the sampler")
    early_stopping: bool = True
    eta: int = Field(2, ge=2, description="reduction factor: a rung keeps 1 in eta")
    grace: int = Field(ge=1, description="epochs before the first rung")
    rungs: tuple[int, ...] | None = Field(
        None, description="epochs after which trials are judged (none: grace times powers of eta)"
    )
    tolerance: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="how far below a rung's threshold a trial is not stopped, in the unit of what "
        "is maximised: what is noise",
    )
    run_on: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the stopped trials that run on, outside the search, to tell what "
        "stopping cost",
    )
    workers: int = Field(1, ge=1, description="trials at a time")
    threads: int = Field(1, ge=1, description="CPU threads of a trial")
    gpus_per_trial: float = Field(0.0, ge=0)
    device: Literal["cpu", "cuda"] = "cpu"
    speeds: dict[str, float] | None = Field(
        None,
        description="images/s of the base in each precision, measured when the study was made; 0 "
        "where it does not compute the same (none: not measured)",
    )
    purpose: Literal["search", "reproduce", "final-holdout"] = Field(
        "search",
        description="which images: a search never opens the test split; an experiment of the "
        "paper is scored on it, trained on all others or without a hold-out for thresholds",
    )
    each_epoch: bool = Field(False, description="an experiment's test images after every epoch")
    rule: Literal["last", "paper"] = Field(
        "last",
        description="an experiment's epoch: the last, or of the best last-exit test accuracy",
    )
    configs: int | None = Field(
        None, ge=1, description="a calibration's configs, each with as many seeds as trials allow"
    )
    calibrated: str | None = Field(
        None, description="the study by whose calibration the rungs were set (none: by none)"
    )
    digests: dict[str, str] | None = Field(
        None,
        description="of the files of your own that it runs, by what they are, and of the names and "
        "sizes of your training images, when the study was made (none: no such file, or not kept)",
    )
    places: dict[str, str] | None = Field(
        None,
        description="of the paths that it names, as they were when the study was made: where that "
        "is from the study's folder (none: no such path, or not kept)",
    )
    only: tuple[str, ...] | None = Field(None, description="an experiment's arms (none: all)")
    finalists: tuple[Finalist, ...] | None = Field(
        None, description="of a confirmation: its rows, the one to compare with first"
    )
    race: tuple[int, ...] | None = Field(
        None, description="of a confirmation: how many run in each round, the first row not counted"
    )
    box: tuple[float, float, float] | None = Field(
        None,
        description="of a confirmation or a calibration: the search's box of the hypervolume",
    )

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(one_line(error)) from None

    @property
    def judged_after(self) -> list[int]:
        """The epochs after which a trial may be stopped; none without early stopping."""
        from studies.rungs import rung_epochs  # numpy, which the command line starts without

        if not self.early_stopping:
            return []
        return rung_epochs(self.grace, self.eta, self.base.epochs, self.rungs)

    @model_validator(mode="after")
    def _rungs_lie_within_the_run(self) -> Self:
        if self.rungs is not None:
            settled_grace(self.grace, self.rungs, self.base.epochs)
            if not self.early_stopping:
                raise InputError(NO_RUNGS)
        return self

    def noted_in(self, folder: Path) -> Self:
        """The plan of a new study in that folder, with its `places`."""
        space = self.space.removeprefix(CALIBRATION)
        named = (self.base.backbone, self.base.scheme, self.base.dataset, space, self.data_root)
        return self.with_(places=places.noted(named, folder) or None)

    def check_files(self) -> None:
        """That the user's files are those that the study was made with: its trials would not be of
        one network, one scheme or one space any more. Raises InputError."""
        paths = {name: getattr(self.base, name) for name in FILES}
        paths["space"] = self.space.removeprefix(CALIBRATION)
        for kind, path in paths.items():
            known, now = (self.digests or {}).get(kind), file_digest(path)
            if None not in (known, now) and known != now:
                raise self._changed(f"{kind} file {path!r} has", "it")

    def check_images(self) -> None:
        """That the user's training images are those that the study was made with, by their names
        and sizes: its trials would not be of one hold-out any more.

        Looks at each file's size, so not for every trial.

        Raises:
            InputError: They are others.
        """
        known = (self.digests or {}).get(IMAGES)
        now = None if known is None else found_images(self.base)
        if None not in (known, now) and known != now:
            raise self._changed(f"the training images of {self.base.dataset!r} have", "them")

    def _changed(self, what: str, it: str) -> InputError:
        searched, do = self.study, "start over with --fresh, or take another --study NAME"
        if self.confirms is not None:
            searched, do = self.confirms, "or search anew"
        return InputError(f"{what} changed since study {searched!r} was made: put {it} back, {do}")

    @property
    def on_one_gpu(self) -> bool:
        """Whether several trials at a time share one GPU."""
        together = self.workers * self.gpus_per_trial
        return self.device == "cuda" and self.workers > 1 and 0 < together < 1 + 1e-6

    @property
    def experiment(self) -> str | None:
        """Name of the paper's experiment that this study runs; None of a search."""
        return self.space.removeprefix(EXPERIMENT) if self.space.startswith(EXPERIMENT) else None

    @property
    def confirms(self) -> str | None:
        """Name of the search that this study confirms; None of any other."""
        return self.space.removeprefix(CONFIRM) if self.space.startswith(CONFIRM) else None

    def needs_checkpoint(self, state: str) -> bool:
        """Whether a trial in this state needs its checkpoint: to go on from it, or, of a
        confirmation's runs of full length, until they are scored on the test split.
        """
        if state == "COMPLETE":
            return self.confirms is not None
        return state in ("WAITING", "RUNNING")

    @property
    def keeps_hits(self) -> bool:
        """Whether the last report of a trial says which held-out images each exit has right."""
        return self.confirms is not None

    @model_validator(mode="after")
    def _a_confirmation_is_a_race(self) -> Self:
        rows, rounds = self.finalists or (), self.race or ()
        if (self.confirms is None) != (not rows) or (not rows) != (not rounds):
            raise InputError(f"finalists and race belong to a confirmation, not to {self.space}")
        if rows and self.trials != len(rows) * len(rounds):
            raise InputError(
                f"a confirmation of {len(rows)} configs in {len(rounds)} rounds has "
                f"{len(rows) * len(rounds)} trials, got {self.trials}"
            )
        if rows and self.early_stopping:
            raise InputError("a confirmation stops no trial early")
        return self

    @property
    def calibrates(self) -> str | None:
        """The space that this study calibrates early stopping for; None of any other study."""
        return self.space.removeprefix(CALIBRATION) if self.space.startswith(CALIBRATION) else None

    @model_validator(mode="after")
    def _a_calibration_runs_in_full(self) -> Self:
        if self.calibrates is not None and self.early_stopping:
            raise InputError("a calibration stops no trial early")
        return self

    @model_validator(mode="after")
    def _only_an_experiment_reads_the_test_split(self) -> Self:
        if (self.purpose == "search") != (self.experiment is None):
            raise InputError(
                f"space {self.space} does not go with purpose {self.purpose}: a search never "
                "opens the test split, an experiment of the paper does"
            )
        if self.experiment is None and (self.each_epoch or self.rule != "last"):
            raise InputError("each_epoch and rule belong to `automate reproduce` alone")
        if self.experiment is not None and self.early_stopping:
            raise InputError("an experiment of the paper stops no trial early")
        return self

    @field_validator("study")
    @classmethod
    def _name_is_safe(cls, value: str) -> str:
        return checked_study_name(value)

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated."""
        return type(self)(**{**self.model_dump(), **changes})
