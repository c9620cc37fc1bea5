"""The paper's experiments, one row each: what is trained, on what, and what of it is shown.

An experiment is a grid of arms and seeds. An arm is a setting of `TrialConfig`; its key is the
trial's parameter `arm` and, where the paper prints a figure for it, the column in `paper.toml`.
Beside the paper's methods stand two controls of ours: the fixed optimum of the mix, and EED at
the strength of MATE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from search_spaces import Point, Space, load_space
from studies.calibration_space import calibration_space
from studies.finalists import race_space
from studies.plan import MOST_SEEDS, StudyPlan
from trainers.catalog import unknown
from trainers.config import TrialConfig
from trainers.schemes import matched_kd_weight

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

ALPHAS = (0.3, 1.0, 3.0, 5.0, 10.0, 30.0, 100.0)
TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 5.0, 8.0)
DIVERSE = (30.0, 5.0, 10.0, 10.0)  # Section 4.7.2: the best single alpha of each exit


@dataclass(frozen=True)
class Arm:
    """One setting of an experiment.

    Attributes:
        key: Its name on the command line, in the storage and in `paper.toml`.
        label: Its name in tables and figures.
        point: Fields of `TrialConfig` that make it.
        line: Arms of one line are joined where x is an axis.
        x: Its place on the axis of a sweep, else None.
        column: Its column in the experiment's table of `paper.toml`; "" where it has none.
        ours: A control that the paper does not have.
    """

    key: str
    label: str
    point: Mapping[str, Any]
    line: str = ""
    x: float | None = None
    column: str = ""
    ours: bool = False


Arms = Callable[[TrialConfig], list[Arm]]


@dataclass(frozen=True)
class Experiment:
    """One row of the table.

    Attributes:
        title: One line for listings.
        place: Where it stands in the paper.
        arms: base config -> what is trained; None where nothing is.
        datasets, backbones: The paper's, its own example first.
        shows: What is drawn, names of `studies.experiment_sections.SHOWS`.
        table: The table of `paper.toml` with figures of its arms, if any.
        each_epoch: Whether the test images are scored after every epoch.
        purpose: Which images, see `StudyPlan`.
        runs_as: Another experiment whose study this is.
    """

    title: str
    place: str
    arms: Arms | None
    datasets: tuple[str, ...] = ("cifar100",)
    backbones: tuple[str, ...] = ("vgg16",)
    shows: tuple[str, ...] = ("cells",)
    table: str | None = None
    each_epoch: bool = False
    purpose: Literal["reproduce", "final-holdout"] = "reproduce"
    runs_as: str | None = None


LABELS = {
    "baseline": "Baseline",
    "branchynet": "BranchyNet",
    "byot": "BYOT",
    "dks": "DKS",
    "eed": "EED",
    "mate": "MATE",
    "mate_gate": "MATE, gates",
    "mate_primary": "MATE without diverse teachers",
    "mate_fixed": "MATE, fixed mix",
}


def _arm(scheme: str, **point: Any) -> Arm:
    return Arm(scheme, LABELS[scheme], {"scheme": scheme, **point}, line=scheme, column=scheme)


def _controls(base: TrialConfig) -> list[Arm]:
    """Ours: MATE's optimum with nothing learned, and EED as strong as MATE."""
    alphas = base.alpha_per_exit()
    strength = base.kd_weight * matched_kd_weight(sum(alphas) / len(alphas), base.exits)
    matched = {"scheme": "eed", "kd_weight": strength}
    return [
        replace(_arm("mate_fixed"), column="", ours=True),
        Arm("eed_matched", "EED at MATE's strength", matched, line="eed_matched", ours=True),
    ]


def _baseline() -> Arm:
    # one exit, so what is given per exit does not fit it
    return _arm("baseline", alpha=(3.0,), alpha_teacher=None, exit_weights=None)


def _multi_exit(base: TrialConfig) -> list[Arm]:
    return [*map(_arm, ("branchynet", "byot", "dks", "eed", "mate")), *_controls(base)]


def _methods(base: TrialConfig) -> list[Arm]:
    return [_baseline(), *_multi_exit(base)]


def _only(*schemes: str) -> Arms:
    return lambda base: [_arm(scheme) for scheme in schemes]


def _distilling(base: TrialConfig) -> list[Arm]:
    return [*map(_arm, ("byot", "dks", "eed", "mate")), *_controls(base)]


def _alphas(scheme: str, values: Sequence[float], prefix: str = "") -> list[Arm]:
    # the paper prints MATE at its default alone: Table 2's figures
    return [
        Arm(
            f"{prefix}alpha_{value:g}",
            f"{LABELS[scheme]}, α = {value:g}",
            {"scheme": scheme, "alpha": (value,), "alpha_teacher": None},
            line=scheme,
            x=value,
            column=scheme if scheme == "mate" and value == 3.0 else "",
        )
        for value in values
    ]


def _sweep(base: TrialConfig) -> list[Arm]:
    return _alphas("mate", ALPHAS)


def _diverse(base: TrialConfig) -> list[Arm]:
    alphas = _alphas("mate", sorted({3.0, *DIVERSE}))
    arms = [replace(arm, column="", line=arm.key, x=None) for arm in alphas]  # no sweep: no axis
    if base.exits == len(DIVERSE):
        point = {"scheme": "mate", "alpha": DIVERSE, "alpha_teacher": None}
        label = f"MATE, α = {', '.join(f'{value:g}' for value in DIVERSE)}"
        arms.append(Arm("diverse", label, point, line="diverse"))
    return arms


def _networks(base: TrialConfig) -> list[Arm]:
    return [*_alphas("mate", ALPHAS), *_alphas("mate_gate", ALPHAS, "gate_")]


def _temperatures(base: TrialConfig) -> list[Arm]:
    return [
        _arm("branchynet"),
        *(
            Arm(
                f"{arm.key}_t_{t:g}",
                f"{arm.label}, T = {t:g}",
                {**arm.point, "temperature": t, "temperatures": None},
                line=arm.key,
                x=t,
                column=arm.column if t == 3.0 else "",
                ours=arm.ours,
            )
            for t in TEMPERATURES
            for arm in _distilling(base)
        ),
    ]


def _readings(base: TrialConfig) -> list[Arm]:
    """What the paper does not say: its augmentation ("standard"), and whether T² is in the loss."""

    def read(arm: Arm, key: str, label: str, **point: Any) -> Arm:
        return replace(
            arm,
            key=f"{arm.key}_{key}",
            label=f"{arm.label}, {label}",
            point={**arm.point, **point},
            line=f"{arm.line}_{key}",
        )

    said = {"augmentation": "crop_flip", "t_squared": False}
    arms = []
    for arm in (_arm("branchynet", **said), _arm("mate", **said)):
        arms += [arm, read(arm, "autoaugment", "AutoAugment", augmentation="autoaugment")]
    return [*arms, read(arms[2], "t_squared", "T²", t_squared=True)]


def _costly(base: TrialConfig) -> list[Arm]:
    return [*_methods(base)[:6], _arm("mate_gate"), *_controls(base)[:1]]


CIFAR_NETWORKS = ("vgg16", "resnet18", "resnext50", "wrn_14_4", "densenet121", "wrn_50_2")
TABLE_1 = ("vgg16", "resnet18", "resnet50", "resnext50")
FINE_GRAINED = ("cub200", "stanford_dogs", "fgvc_aircraft")

EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment(
        "FLOPs of every exit (counted, nothing is trained)", "Table 1", None,
        ("cifar100", "stanford_dogs"), TABLE_1, ("costs",),
    ),
    "table2": Experiment(
        "all methods on CIFAR-100", "Table 2, Section 4.4.1", _methods,
        backbones=CIFAR_NETWORKS, table="table2", shows=("cells", "separation"),
    ),
    "table3": Experiment(
        "all methods on TinyImageNet", "Table 3, Section 4.4.2", _methods,
        ("tinyimagenet",), CIFAR_NETWORKS, table="table3", shows=("cells", "separation"),
    ),
    "fig3": Experiment(
        "accuracy of every exit over training, no distillation", "Fig. 3, Section 3.1.2",
        _only("branchynet"), shows=("curves", "cells"), table="table2", each_epoch=True,
    ),
    "fig5": Experiment(
        "all methods on the fine-grained data sets", "Fig. 5, Section 4.4.3", _methods,
        FINE_GRAINED, ("resnet18",), table="fig5",
    ),
    "table4": Experiment(
        "learning gaps: how far each teacher is ahead of its exit", "Table 4, Section 4.5",
        _distilling, shows=("gaps", "gap_curves"), table="table4", each_epoch=True,
    ),
    "fig6": Experiment(
        "learning gaps over training (the study of table4)", "Fig. 6, Section 4.5",
        _distilling, shows=("gap_curves", "gaps"), table="table4", each_epoch=True,
        runs_as="table4",
    ),
    "fig7": Experiment(
        "who composes MATE's teachers, over training", "Fig. 7, Section 4.6", _only("mate"),
        shows=("mixes", "cells"), table="table2", each_epoch=True,
    ),
    "fig8": Experiment(
        "α of MATE, one value for all exits", "Fig. 8, Section 4.7.1", _sweep,
        backbones=("vgg16", "resnext50"), shows=("alpha", "every"), table="table2",
    ),
    "table5": Experiment(
        "the best single α of each exit, α = 3, and one α per exit", "Table 5, Section 4.7.2",
        _diverse, shows=("diverse",), table="table5",
    ),
    "table6": Experiment(
        "MATE with and without diverse teachers", "Table 6, Section 4.7.3",
        _only("mate", "mate_primary"), table="table6",
    ),
    "fig9": Experiment(
        "temperature, all methods", "Fig. 9, Section 4.7.4", _temperatures,
        shows=("temperature", "every"), table="table2",
    ),
    "fig10": Experiment(
        "attention against gates over α", "Fig. 10, Section 4.7.5", _networks,
        shows=("alpha", "every"), table="table2",
    ),
    "table7": Experiment(
        "top-5 accuracy in budget mode", "Table 7, Section 4.7.6", _multi_exit,
        backbones=("msdnet",), shows=("budget", "every"), table="table7",
        purpose="final-holdout",
    ),
    "recipe": Experiment(
        "what the paper leaves open: AutoAugment or crop and mirror, with and without T²",
        "Sections 3.1.2 and 4.2", _readings, backbones=CIFAR_NETWORKS, table="table2",
        shows=("cells", "separation"),
    ),
    "cost": Experiment(
        "training time and memory of every scheme (measured, nothing is stored)",
        "Sections 3.2.1 and 5", _costly, backbones=CIFAR_NETWORKS, shows=("footprints",),
    ),
}  # fmt: skip


def experiment_named(name: str) -> Experiment:
    """The row of the table.

    Raises:
        InputError: Unknown name; the known ones and the nearest are listed.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS, "see `automate reproduce --list`")
    return EXPERIMENTS[name]


def arms_of(name: str, base: TrialConfig, only: Sequence[str] | None = None) -> list[Arm]:
    """The arms of an experiment, all or those that are named.

    Raises:
        InputError: Unknown experiment or arm.
    """
    made = experiment_named(name).arms
    arms = made(base) if made else []
    keys = [arm.key for arm in arms]
    for key in only or ():
        if key not in keys:
            raise unknown(f"arm of {name}", key, keys)
    return arms if only is None else [arm for arm in arms if arm.key in only]


def space_of(plan: StudyPlan) -> Space:
    """What a study's trials are taken from: a search space, or the grid of an experiment, a
    calibration or a confirmation.

    The points of an experiment are every arm with the first seed, then every arm with the next one,
    so that a study that is stopped has whole comparisons, and one with more seeds goes on.
    """
    name = plan.experiment
    if plan.calibrates is not None:
        return calibration_space(plan)
    if plan.confirms is not None:
        return race_space(plan)
    if name is None:
        return load_space(plan.space)
    arms = {arm.key: arm for arm in arms_of(name, plan.base)}
    wanted = [arm.key for arm in arms_of(name, plan.base, plan.only)]
    first = plan.base.seed

    def suggest(trial: BaseTrial, base: TrialConfig) -> TrialConfig:
        arm = arms[trial.suggest_categorical("arm", list(arms))]
        seed = trial.suggest_int("seed", first, first + MOST_SEEDS - 1)
        return base.with_(**arm.point, seed=seed)

    def grid(base: TrialConfig) -> list[Point]:
        seeds = ceil(plan.trials / len(wanted))
        return [{"arm": key, "seed": first + k} for k in range(seeds) for key in wanted]

    title = experiment_named(name).title
    return Space(plan.space, title, lambda base: [], suggest, grid)


def settled(name: str) -> str:
    """The experiment whose study an experiment is: its own, but fig6 is table4's.

    Raises:
        InputError: Unknown name.
    """
    return experiment_named(name).runs_as or name


def trains(name: str) -> bool:
    """Whether an experiment is a study, not a count or a measurement made at once."""
    return name not in ("table1", "cost")
