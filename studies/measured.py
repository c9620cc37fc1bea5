"""What the trials of an experiment came to: cells, gaps and mixes, as numbers without a figure.

Accuracies here are in %, gaps in points of accuracy. An exit counts from 0 and the baseline's one
exit is the last.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import savgol_filter

from studies import verdict as v
from studies.experiments import Arm, Experiment, arms_of, experiment_named
from studies.paper import Printed, paper
from studies.plan import StudyPlan
from studies.states import ENDED, Outcome
from trainers import catalog, dynamic
from trainers.catalog import last_part
from trainers.config import TrialConfig
from trainers.reports import EpochReport
from trainers.schemes import scheme_named

if TYPE_CHECKING:
    from studies.view import View

WINDOW, ORDER = 31, 3  # of the Savitzky-Golay filter at 300 epochs; the paper does not say
TOP_1 = ("table2", "table3", "fig5", "table6")  # tables with a top-1 accuracy an exit and an arm
# Fields that the paper leaves open (augmentation, the weight network's) or that change no figure.
OPEN = ("augmentation", "mix_width", "mix_scale", "mix_init", "mix_lr", "kl", "precision")
NO_RECIPE = {
    *OPEN, "schema_version", "dataset", "classes", "image_size", "resize", "limit_train",
    "validation", "split_seed", "backbone", "width", "scheme", "epochs", "seed",
}  # fmt: skip


@dataclass(frozen=True)
class Stat:
    """One figure over seeds.

    Attributes:
        values: One a seed, at least one.
    """

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None of one seed."""
        return statistics.stdev(self.values) if self.n > 1 else None

    @property
    def figure(self) -> str:
        """`70.12 ± 0.33`, `70.12`: n has to stand beside it."""
        return f"{self.mean:.2f}" if self.std is None else f"{self.mean:.2f} ± {self.std:.2f}"

    def text(self) -> str:
        """`70.12 ± 0.33 (n = 3)`, `70.12 (n = 1, unconfirmed)`."""
        return f"{self.figure} ({f'n = {self.n}' if self.n > 1 else v.UNCONFIRMED})"


@dataclass(frozen=True)
class Run:
    """A finished trial.

    Attributes:
        number: Of the trial.
        seed: Of its weights, order and augmentation.
        config: Of the trial.
        reports: Its scored epochs, oldest first.
        report: The epoch that counts, by the study's rule.
    """

    number: int
    seed: int
    config: TrialConfig
    reports: tuple[EpochReport, ...]
    report: EpochReport


@dataclass(frozen=True)
class Measured:
    """One study of an experiment.

    Attributes:
        name: Of the experiment.
        plan: Of the study.
        arms: What is trained, in the table's order.
        runs: Arm's key -> its finished runs, by seed.
        lost: Trials that failed or diverged.
        left: Trials that have not ended.
    """

    name: str
    plan: StudyPlan
    arms: tuple[Arm, ...]
    runs: Mapping[str, tuple[Run, ...]]
    lost: tuple[Outcome, ...]
    left: int

    @property
    def experiment(self) -> Experiment:
        """Its row of the table."""
        return experiment_named(self.name)

    @property
    def exits(self) -> int:
        """M of the network."""
        return self.plan.base.exits

    @property
    def title(self) -> str:
        """`vgg16 on cifar100`, of paths the last part."""
        base = self.plan.base
        return f"{last_part(base.backbone)} on {last_part(base.dataset)}"

    @property
    def known(self) -> bool:
        """Whether the paper has this network on this data set in this experiment."""
        row, base = self.experiment, self.plan.base
        return base.dataset in row.datasets and base.backbone in row.backbones

    @property
    def comparable(self) -> bool:
        """Whether ours was trained as the paper's: only then is there a difference to print."""
        return self.known and not shrunk(self.plan)

    def accuracy(self, key: str, exit: int) -> Stat | None:
        """Top-1 on test in % of an arm's exit; None where no run of it has that exit."""
        found = []
        for run in self.runs.get(key, ()):
            values = run.report.accuracies
            place = exit - (self.exits - len(values))
            if place >= 0:
                found.append(100 * values[place])
        return Stat(tuple(found)) if found else None

    def printed(self, arm: Arm, place: int) -> Printed | None:
        """The paper's figure beside an arm's exit (of table7 a budget), wherever ours was run."""
        table = self.experiment.table
        if table is None or not arm.column or not self.known:
            return None
        base = self.plan.base
        row = base.dataset if table == "fig5" else base.backbone
        column = paper().column(table, row, arm.column)
        return column[place] if place < len(column) else None

    def cell(self, arm: Arm, exit: int) -> Printed | None:
        """The paper's top-1 accuracy beside `accuracy`."""
        return self.printed(arm, exit) if self.experiment.table in TOP_1 else None

    def means(self) -> dict[str, list[float | None]]:
        """Arm's key -> mean accuracy of each exit, for what the paper's sentences are about."""
        found = {}
        for arm in self.arms:
            stats = [self.accuracy(arm.key, i) for i in range(self.exits)]
            if any(stats):
                found[arm.key] = [stat.mean if stat else None for stat in stats]
        return found


def measure(view: View) -> Measured:
    """What a study's trials came to. Raises InputError for one that runs no experiment we know."""
    plan = view.plan
    name = plan.experiment or ""
    arms = arms_of(name, plan.base, plan.only)
    runs: dict[str, list[Run]] = {arm.key: [] for arm in arms}
    for outcome in v.finished(view.outcomes):
        key, config = outcome.params.get("arm"), outcome.config
        scored = tuple(r for r in view.reports.get(outcome.number, ()) if r.exits)
        if key in runs and config is not None and scored:
            report = chosen(scored, plan.rule)
            runs[key].append(Run(outcome.number, config.seed, config, scored, report))
    return Measured(
        name=name,
        plan=plan,
        arms=tuple(arms),
        runs={key: tuple(sorted(some, key=lambda run: run.seed)) for key, some in runs.items()},
        lost=tuple(o for o in view.outcomes if o.state == "FAIL" or o.diverged),
        left=sum(o.state not in ENDED for o in view.outcomes),
    )


def chosen(reports: Sequence[EpochReport], rule: str) -> EpochReport:
    """The epoch whose figures count: the last, or by the paper's rule the best last exit's.

    The paper's rule selects on the test set (Section 4.4.1); of equal epochs it takes the first.
    """
    if rule == "last":
        return reports[-1]
    return max(reports, key=lambda report: (report.accuracies[-1], -report.epoch))


def shrunk(plan: StudyPlan) -> list[str]:
    """What makes a study smaller or other than the paper's: "epochs 2 of 300"; [] if nothing."""
    base, row = plan.base, experiment_named(plan.experiment or "")
    home = base.dataset if base.dataset in row.datasets else row.datasets[0]
    recipe = {**paper().recipe, **paper().recipe[home]}
    found = []
    if base.dataset not in row.datasets:
        found.append(f"data set {last_part(base.dataset)}, not {_either(row.datasets)}")
    if base.backbone not in row.backbones:
        found.append(f"network {last_part(base.backbone)}, not {_either(row.backbones)}")
    if base.epochs != recipe["epochs"]:
        found.append(f"{base.epochs} of {recipe['epochs']} epochs")
    if base.limit_train is not None:
        entry = catalog.DATASETS.get(base.dataset)
        of = f" of {entry.train:,}" if entry else ""
        found.append(f"{base.limit_train:,}{of} training images")
    if base.width != 1:
        found.append(f"width {base.width:g} of 1")
    for name, info in TrialConfig.model_fields.items():
        if name in NO_RECIPE:
            continue
        usual, given = recipe.get(name, info.default), getattr(base, name)
        usual = (usual,) if isinstance(given, tuple) and isinstance(usual, float) else usual
        if given != usual:
            found.append(f"{name} {_shown(given)}, not {_shown(usual)}")
    return found


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"one of the paper's {len(names)}"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(f"{part:g}" for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def gaps(run: Run) -> np.ndarray:
    """(epochs, M): how far the teacher of each exit is ahead of it, points of accuracy on test.

    The teacher of exit i is its primary one where there is one (MATE), else what it learns from:
    the deepest exit (BYOT), the ensemble of all (EED), the ensemble of the others (DKS). NaN of an
    exit that nobody teaches. Section 4.5.
    """
    scheme = scheme_named(run.config.scheme)
    taught = [sum(row) > 0 for row in scheme.weights(run.config.alpha_per_exit())]
    rows = []
    for report in run.reports:
        teachers = report.teachers if scheme.alpha else report.lessons
        rows.append(
            [
                100 * (teacher - own) if is_taught else np.nan
                for teacher, own, is_taught in zip(teachers, report.accuracies, taught, strict=True)
            ]
        )
    return np.array(rows, dtype=np.float64).reshape(len(rows), run.config.exits)


def gap_over_epochs(runs: Sequence[Run], exit: int) -> tuple[Stat, Stat] | None:
    """Mean and standard deviation over epochs of an exit's gap, one value a seed (Table 4)."""
    lines = [gaps(run)[:, exit] for run in runs]
    if not lines or any(np.isnan(line).any() for line in lines):
        return None
    means = tuple(float(line.mean()) for line in lines)
    return Stat(means), Stat(tuple(float(line.std()) for line in lines))


def smoothed(line: np.ndarray) -> np.ndarray:
    """A curve after a Savitzky-Golay filter (Schafer 2011): a tenth of it wide, order 3.

    One that is shorter than 5 points is returned as it is.
    """
    most = len(line) - 1 + len(line) % 2  # a window is odd
    window = min(max(round(len(line) * WINDOW / 300) | 1, 5), most)
    if window < 5:
        return line
    made: np.ndarray = savgol_filter(line, window, ORDER)
    return made


def mean_mixes(runs: Sequence[Run]) -> list[EpochReport]:
    """The epochs of the first run with the mix, and its entropy, averaged over all runs."""
    made = []
    for same in zip(*(run.reports for run in runs), strict=False):
        if not all(report.mix for report in same):
            continue
        mix = np.mean([report.mix for report in same], axis=0)
        nats = np.mean([report.mix_entropy for report in same], axis=0)
        fields = {"mix": tuple(map(tuple, mix.tolist())), "mix_entropy": tuple(nats.tolist())}
        made.append(same[0].model_copy(update=fields))
    return made


def budgets_of(one: Measured) -> list[float]:
    """Mean FLOPs at which budget mode is compared: Table 7's; of another network six even steps."""
    if one.known and one.plan.base.width == 1:
        return list(paper().budgets)
    curves = [run.report.budget for runs in one.runs.values() for run in runs]
    ends = [(curve[0].flops, curve[-1].flops) for curve in curves if curve]
    if not ends:
        return []
    low, high = max(end[0] for end in ends), min(end[1] for end in ends)
    return [float(flops) for flops in np.linspace(low, high, 6)]


def at_budget(one: Measured, key: str, flops: float) -> Stat | None:
    """Top-5 on test in % at a mean cost, on the line between an arm's nearest budget points.

    None where no run of it can spend that much.
    """
    found = []
    for run in one.runs.get(key, ()):
        curve = run.report.budget
        if curve and curve[0].flops <= flops <= curve[-1].flops:
            found.append(100 * dynamic.at(curve, flops, "top5"))
    return Stat(tuple(found)) if found else None
