"""What makes the early order of configs agree with the last one, on recorded runs:

    python -m tests.benchmarks.ranks RUNS.jsonl.gz|TABLE ...

TABLE is one that comes with automate, or a .npz file. A line of any other file is one run of full
length, see `studies.recorded.read_runs`; of averaged weights it has the plain network's accuracies
beside them, as `raw`. Runs that differ in ramp_up or ema are tables of their own. Prints of each
table, and of each way of looking at it, Kendall's tau-b with the end, and what halving after an
epoch keeps and loses. Figures of the anytime accuracy, in points.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_spaces import load_space
from studies.calibration import agreement, calibrate, kendall, spread
from studies.comparison import crossed
from studies.curve_tables import ENDING, CurveTable, read_table, shipped
from studies.halving import Curves, Rule, outcome, pools
from studies.recorded import read_runs
from studies.resume import config_at
from studies.rungs import after_drops, rung_epochs
from trainers.config import TrialConfig

DRAWS = 600


@dataclass(frozen=True)
class Table:
    """Runs of one kind.

    Attributes:
        name: File and what is special.
        configs: (C,), without their seed.
        values: (C, S, E), anytime accuracy in points.
    """

    name: str
    configs: tuple[TrialConfig, ...]
    values: Curves

    @property
    def strength(self) -> NDArray[np.float64]:
        """(C,), log10 of the mean weight of the distillation: kd_weight (M + mean α)."""
        return np.array(
            [
                np.log10(max(c.kd_weight, 1e-3) * (c.exits + np.mean(c.alpha_per_exit())))
                for c in self.configs
            ]
        )


def anytime(accuracy: list[list[float]], epochs: int, chance: float) -> NDArray[np.float64]:
    """(E,), mean over exits of the best accuracy up to there, in points; chance once diverged."""
    made = np.full(epochs, 100 * chance)
    seen = np.asarray(accuracy, dtype=float)[:epochs]
    if len(seen):
        made[: len(seen)] = 100 * np.maximum.accumulate(seen, axis=1).mean(axis=1)
    return made


def tables(paths: list[Path]) -> list[Table]:
    """The tables of some files, the larger ones first."""
    runs: dict[str, dict[str, dict[int, NDArray[np.float64]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    configs: dict[str, TrialConfig] = {}
    made = []
    for path in paths:
        if is_table(str(path)):
            made.append(recorded(read_table(str(path))))
            continue
        for run in read_runs(path):
            config = run["config"].with_(seed=0)
            kind = path.name.split(".")[0]
            kind += f", ramp_up {config.ramp_up}" if config.ramp_up else ""
            point = json.dumps(run["params"], sort_keys=True)
            for name, key in (("averaged" if config.ema else "", "accuracy"), ("plain", "raw")):
                if run.get(key):
                    full = f"{kind}, {name}" if name else kind
                    configs[f"{full}{point}"] = config
                    curve = anytime(run[key], config.epochs, 1 / config.classes)
                    runs[full][point][run["seed"]] = curve
    for name, points in runs.items():
        seeds = sorted({seed for curves in points.values() for seed in curves})
        there = np.array([[seed in curves for seed in seeds] for curves in points.values()])
        rows, columns = crossed(there)
        shared, kept = [seeds[column] for column in columns], [list(points)[row] for row in rows]
        values = [[points[point][seed] for seed in shared] for point in kept]
        found = tuple(configs[f"{name}{point}"] for point in kept)
        made.append(Table(name, found, np.array(values)))
    return made


def is_table(name: str) -> bool:
    """Whether it is a table of curves, not a file of runs."""
    return name.endswith(ENDING) or name in shipped()


def recorded(table: CurveTable) -> Table:
    """A table of curves; a run that diverged is at chance from there on."""
    best = np.maximum.accumulate(table.accuracy, axis=-1).mean(axis=-1)
    values = 100 * np.nan_to_num(best, nan=1 / table.base.classes)
    space = load_space(table.space)
    configs = tuple(config_at(space, table.base, params) for params in table.params)
    return Table(table.name, configs, values)


# Ways of looking at the first e epochs of a run: (curve (..., e), epochs) -> what it is ranked by.


def last(seen: Curves, epochs: int) -> NDArray[np.float64]:
    """The value after the last of them."""
    return seen[..., -1]


def mean3(seen: Curves, epochs: int) -> NDArray[np.float64]:
    """The mean of the last three."""
    return seen[..., -3:].mean(axis=-1)


def best(seen: Curves, epochs: int) -> NDArray[np.float64]:
    """The best so far."""
    return seen.max(axis=-1)


def power_law(seen: Curves, epochs: int) -> NDArray[np.float64]:
    """a - b t^-c at the last epoch, by least squares over the second half of what was seen, c from
    a grid (as in Cortes et al. 1993; Domhan et al. 2015 have more families)."""
    e = seen.shape[-1]
    t = np.arange(1, e + 1, dtype=float)
    use = slice(min(e // 4, max(0, e - 3)), e)
    best_error = np.full(seen.shape[:-1], np.inf)
    found = seen[..., -1].copy()
    if e < 4:
        return found
    y = seen[..., use]
    for c in (0.25, 0.5, 1.0, 2.0):
        x = t[use] ** -c
        xc, yc = x - x.mean(), y - y.mean(axis=-1, keepdims=True)
        slope = (yc * xc).sum(axis=-1) / (xc**2).sum()
        slope = np.minimum(slope, 0)  # rising curves
        error = ((yc - slope[..., None] * xc) ** 2).sum(axis=-1)
        at_end = y.mean(axis=-1) + slope * (epochs**-c - x.mean())
        better = error < best_error
        best_error, found = np.where(better, error, best_error), np.where(better, at_end, found)
    return found


LOOKS = {"last": last, "mean of 3": mean3, "best so far": best, "power law": power_law}


def adjusted(table: Table, epoch: int) -> NDArray[np.float64]:
    """(C, S): the value after an epoch plus what configs of this strength still gain, a quadratic
    in log strength fitted to the other configs: ranking within similar strength, smoothly."""
    early, end = table.values[:, :, epoch - 1], table.values[:, :, -1]
    x = np.vander(table.strength, 3)
    gain = (end - early).mean(axis=1)
    made = np.empty_like(early)
    for c in range(len(early)):
        others = np.arange(len(early)) != c
        fit = np.linalg.lstsq(x[others], gain[others], rcond=None)[0]
        made[c] = early[c] + x[c] @ fit
    return made


def within(table: Table, epoch: int, strata: int = 3) -> float:
    """Mean tau-b within terciles of strength."""
    order = np.array_split(np.argsort(table.strength, kind="stable"), strata)
    found = [
        kendall(table.values[part, s, epoch - 1], table.values[part, s, -1])[0]
        for part in order
        for s in range(table.values.shape[1])
    ]
    return float(np.nanmean(found))


def regret(
    table: Table, rungs: Sequence[int], trials: int = 20, draws: int = 2000
) -> tuple[float, float, float]:
    """What a search loses and trains where each rung keeps the better half.

    Args:
        rungs: Epochs, ascending.
        trials: Of a search, with one seed. draws: Searches.

    Returns:
        Points lost to the search's best by the other seeds' means; the share of searches that keep
        their best or one as good within the scatter; the share of the epochs.
    """
    rng = np.random.default_rng(0)
    configs, seeds, epochs = table.values.shape
    ends = table.values[:, :, -1]
    truth = (ends.sum(axis=1, keepdims=True) - ends) / (seeds - 1) if seeds > 1 else ends
    n = min(trials, configs)
    c = np.argsort(rng.random((draws, configs)), axis=1)[:, :n]
    s = np.repeat(rng.integers(seeds, size=(draws, 1)), n, axis=1)
    alive = np.ones((draws, n), dtype=bool)
    trained, before = np.zeros(draws), 0
    for rung in rungs:
        count = alive.sum(axis=1)
        trained += count * (rung - before)
        seen = np.where(alive, table.values[c, s, rung - 1], -np.inf)
        worst = -np.sort(-seen, axis=1)[np.arange(draws), np.maximum(1, count // 2) - 1]
        alive &= seen >= worst[:, None]
        before = rung
    trained += alive.sum(axis=1) * (epochs - before)
    end, true = ends[c, s], truth[c, s]
    chosen = np.where(alive, end, -np.inf).argmax(axis=1)
    lost = true.max(axis=1) - true[np.arange(draws), chosen]
    margin = spread(table.values)
    good = end.max(axis=1) - np.where(alive, end, -np.inf).max(axis=1)
    kept = good <= (margin[-1].value if margin else 0.0)
    return float(lost.mean()), float(kept.mean()), float(trained.mean() / (n * epochs))


def epochs_shown(epochs: int) -> list[int]:
    """About a dozen epochs, those around the milestones among them."""
    half, three = epochs // 2, epochs * 3 // 4
    wanted = {1, 2, 4, epochs // 5, epochs // 4, epochs // 3, half - 1, half, half + 1, half + 2,
              half + 4, three, three + 1, three + 2, epochs - 1, epochs}  # fmt: skip
    return sorted(e for e in wanted if 1 <= e <= epochs)


def about(table: Table) -> None:
    """One table, all looks."""
    configs, seeds, epochs = table.values.shape
    ends = table.values[:, :, -1].mean(axis=1)
    print(f"\n## {table.name}: {configs} configs x {seeds} seeds, {epochs} epochs, "
          f"{table.configs[0].schedule} schedule")  # fmt: skip
    print(f"ends: {ends.min():.2f} to {ends.max():.2f}, std between configs {ends.std(ddof=1):.2f}")
    found = calibrate(table.values[..., None], Rule(max(1, epochs // 3)), DRAWS)
    if found.again:
        print(f"one run's last order against the other seeds' means: tau {show(found.again)}")
    crossing(table)
    print("epoch  spread  tau (95 %)            halved: kept, loss   " + "  ".join(LOOKS) +
          "  adjusted  within strength  | against the other seeds' mean end")  # fmt: skip
    for e in epochs_shown(epochs):
        moment = found.moments[e - 1]
        taus = []
        for look in LOOKS.values():
            score = look(table.values[:, :, :e], epochs)
            columns = [kendall(score[:, s], table.values[:, s, -1])[0] for s in range(seeds)]
            taus.append(f"{np.nanmean(columns):.2f}")
        score = adjusted(table, e)
        columns = [kendall(score[:, s], table.values[:, s, -1])[0] for s in range(seeds)]
        spread_ = "" if moment.spread is None else f"{moment.spread.value:.2f}"
        print(f"{e:5d}  {spread_:6s}  {show(moment.tau):20s}  {moment.halved.kept:.2f} "
              f"{moment.halved.loss:.2f}   {'  '.join(taus)}  {np.nanmean(columns):.2f}  "
              f"{within(table, e):.2f}  | {true(table, e)}")  # fmt: skip
    for name, one in (("chosen", found.chosen), ("usual", found.usual)):
        print(f"{name}: {one.rule} keeps {one.kept:.2f}, loses {one.loss:.2f}, "
              f"trains {one.epochs:.2f}")  # fmt: skip
    print(f"first safe epoch (halving): {found.safe}")
    for listed in ((), after_drops(table.configs[0].milestones, epochs)):
        dozen(table.values[..., None], listed)
    rules(table)


def rules(table: Table) -> None:
    """What halving from an epoch on loses and trains, by the last value seen."""
    print("no stopping: regret {:.3f}, kept {:.2f}, epochs {:.2f}".format(*regret(table, [])))
    for grace in epochs_shown(table.values.shape[2])[:-1]:
        lost, kept, cost = regret(table, rung_epochs(grace, 2, table.values.shape[2]))
        print(f"  grace {grace}: regret {lost:.3f}, kept {kept:.2f}, epochs {cost:.2f}")


def true(table: Table, epoch: int) -> str:
    """Agreement of a run after an epoch with what its config is worth by the other seeds."""
    ends, seeds = table.values[:, :, -1], table.values.shape[1]
    if seeds < 2:
        return ""
    worth = (ends.sum(axis=1, keepdims=True) - ends) / (seeds - 1)
    return show(agreement(table.values[:, :, epoch - 1], worth, DRAWS))


def crossing(table: Table) -> None:
    """Mean curves of the terciles of strength: whether they cross."""
    order = np.array_split(np.argsort(table.strength, kind="stable"), 3)
    for name, part in zip(("weak", "middle", "strong"), order, strict=True):
        means = table.values[part].mean(axis=(0, 1))
        shown = ", ".join(f"{e}: {means[e - 1]:.2f}" for e in epochs_shown(len(means)))
        print(f"  {name:6s} (mean strength {10 ** table.strength[part].mean():.0f})  {shown}")


def dozen(
    curves: Curves, listed: Sequence[int] = (), configs: int = 12, seeds: int = 3, times: int = 60
) -> None:
    """What `automate calibrate` would have set from a dozen configs, judged on all of them.

    Args:
        curves: (C, S, E, K), in points; of a front each exit's accuracy.
        listed: Rungs after the drops of the learning rate, one more rule to choose; none.
        configs, seeds: Of each calibration.
        times: Calibrations.
    """
    rng = np.random.default_rng(1)
    usual = Rule(max(1, curves.shape[2] // 3))
    scatter = [spread(curves[..., column]) for column in range(curves.shape[3])]
    if scatter[0] is None or len(curves) <= configs:
        return
    margins = [ranges[-1].value for ranges in scatter if ranges is not None]
    searches = pools(curves, DRAWS, trials=20)
    found, safe = [], []
    for _ in range(times):
        some = rng.choice(len(curves), configs, replace=False)
        columns = rng.choice(curves.shape[1], min(seeds, curves.shape[1]), False)
        said = calibrate(curves[some][:, columns], usual, 300, listed=listed)
        found.append(outcome(searches, said.chosen.rule, margins))
        safe.append(said.safe or curves.shape[2])
    one = outcome(searches, usual, margins)
    taken = sum(rule.rule.rungs is not None for rule in found)
    print(f"  with rungs after {listed or 'no drop'} among the rules (taken {taken} times):")
    for what in ("kept", "loss", "epochs"):
        values = [getattr(rule, what) for rule in found]
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
        print(f"  a dozen's rule, {what}: median {middle:.2f} (80 %: {low:.2f} to {high:.2f}), "
              f"mean {np.mean(values):.2f}; the usual one {getattr(one, what):.2f}")  # fmt: skip
    good = np.mean([rule.kept >= 0.85 for rule in found])
    low, middle, high = np.quantile(safe, [0.1, 0.5, 0.9])
    print(f"  first safe epoch: median {middle:.0f} ({low:.0f} to {high:.0f}); rules that keep "
          f"85 % or more: {100 * good:.0f} % of {times}; that stop: "
          f"{sum(rule.epochs < 1 for rule in found)}")  # fmt: skip


def front(table: CurveTable) -> None:
    """A table's exits each by itself, as `--objective front` has them."""
    curves = 100 * np.nan_to_num(table.accuracy, nan=1 / table.base.classes)
    listed = after_drops(table.base.milestones, table.epochs)
    found = calibrate(curves, Rule(max(1, table.epochs // 3)), DRAWS, listed=listed)
    print(f"\n## {table.name}, front: of each exit the spread, then tau; what a rung keeps")
    for e in epochs_shown(table.epochs):
        moment = found.moments[e - 1]
        spreads = " ".join(f"{range_.value:.2f}" for range_ in moment.spreads)
        taus = " ".join(f"{tau.value:.2f}" for tau in moment.taus)
        print(f"{e:5d}  {spreads}  {taus}  least {show(moment.tau)}  {moment.halved.kept:.2f} "
              f"{moment.halved.loss:.2f} {moment.halved.epochs:.2f}")  # fmt: skip
    print(f"again {show(found.again) if found.again else ''}; first safe epoch {found.safe}")
    for name, one in (("chosen", found.chosen), ("usual", found.usual)):
        print(f"{name}: {one.rule} keeps {one.kept:.2f}, {one.loss:.2f} behind, "
              f"trains {one.epochs:.2f}")  # fmt: skip
    dozen(curves, listed)


def show(range_: tuple[float, float, float]) -> str:
    value, low, high = range_
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def compare(one: Table, two: Table) -> None:
    """Two tables of the same points: end accuracy and agreement, paired."""
    places = {c.with_(ramp_up=0, ema=0.0): i for i, c in enumerate(one.configs)}
    pairs = [
        (places[key], j)
        for j, c in enumerate(two.configs)
        if (key := c.with_(ramp_up=0, ema=0.0)) in places
    ]
    if len(pairs) < 5:
        return
    first, second = np.array(pairs).T
    seeds = min(one.values.shape[1], two.values.shape[1])
    a, b = one.values[first][:, :seeds], two.values[second][:, :seeds]
    change = (b - a)[:, :, -1].mean(axis=1)
    error = change.std(ddof=1) / np.sqrt(len(change))
    print(f"\n## {two.name} against {one.name}: {len(pairs)} points x {seeds} seeds")
    print(f"change at the end {change.mean():+.2f} ± {1.96 * error:.2f} points; strongest third "
          f"{change[np.argsort(one.strength[first])[-len(pairs) // 3:]].mean():+.2f}")  # fmt: skip
    epochs = a.shape[2]
    for e in epochs_shown(epochs):
        own = [agreement(x[:, :, e - 1], x[:, :, -1], DRAWS) for x in (a, b)]
        cross = agreement(b[:, :, e - 1], a[:, :, -1], DRAWS)
        print(f"{e:5d}  tau {show(own[0])} | {show(own[1])} | second's early, first's end "
              f"{show(cross)}")  # fmt: skip


def main(paths: Sequence[str]) -> list[Table]:
    """All tables, then those of one file or one kind against each other, then fronts."""
    found = tables([Path(name) for name in paths])
    for table in found:
        about(table)
    for i, one in enumerate(found):
        for two in found[i + 1 :]:
            (file, *kind), (other, *other_kind) = one.name.split(", "), two.name.split(", ")
            if file == other or kind[-1:] == other_kind[-1:]:
                compare(one, two)
    for name in paths:
        if is_table(name):
            front(read_table(name))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
