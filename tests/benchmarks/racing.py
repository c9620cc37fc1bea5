"""What the race and its verdict are worth, on studies that are drawn and not trained.

python -m tests.benchmarks.racing --studies 2000

A study here is a table of 9 configs (the default and 8 candidates) by seeds: config + seed + noise.
Counted are false claims where no config is better, found ones where one is 0.5 points better, how
often the race ends with the whole grid's winner, what it spends, how often the intervals hold, and
by how much search and confirmation say too much. Bounds are exact (Clopper and Pearson), 99 %.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from studies import racing
from studies.comparison import Difference, against, fit
from studies.confirmed import judge, standard_error

Values = NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, int]], Values]

TOP, TRIALS = 8, 60
SEED_SPREAD = 0.3  # what a seed and its hold-out do to all configs, points


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: It says.
        case: The studies that it is of.
        value: A share, or points of accuracy.
        low, high: 99 % interval.
        n: Studies.
    """

    what: str
    case: str
    value: float
    low: float
    high: float
    n: int


def normal(spread: float) -> Noise:
    return lambda rng, shape: rng.normal(0, spread, shape)


def heavy(spread: float) -> Noise:
    """Student's t with 4 degrees of freedom, of that standard deviation."""
    return lambda rng, shape: spread / math.sqrt(2) * rng.standard_t(4, shape)


def uneven(spread: float) -> Noise:
    """Configs of different spread, half of it to half as much again."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Values:
        factors = rng.permutation(np.linspace(0.5, 1.5, shape[0]))
        drawn: Values = rng.normal(0, spread, shape) * factors[:, None]
        return drawn

    return draw


NOISES: dict[str, Callable[[float], Noise]] = {
    "normal noise": normal,
    "heavy tails": heavy,
    "uneven spreads": uneven,
}


def study(rng: np.random.Generator, truth: Values, seeds: int, noise: Noise) -> Values:
    """(C, S): a whole grid."""
    shape = (len(truth), seeds)
    grid: Values = truth[:, None] + noise(rng, shape) + rng.normal(0, SEED_SPREAD, (1, seeds))
    return grid


def share(what: str, case: str, hits: int, n: int) -> Row:
    """A share with its exact interval."""
    found = stats.binomtest(hits, n).proportion_ci(0.99, "exact") if n else None
    low, high = (found.low, found.high) if found else (math.nan, math.nan)
    return Row(what, case, hits / n if n else math.nan, float(low), float(high), n)


def mean(what: str, case: str, values: Sequence[float]) -> Row:
    """A mean with its normal interval."""
    table = np.array(values)
    half = 2.576 * float(table.std(ddof=1)) / math.sqrt(len(table))
    centre = float(table.mean())
    return Row(what, case, centre, centre - half, centre + half, len(table))


def claimable(seen: Values) -> list[Difference]:
    """As `judge` has it, without the rest."""
    ran = ~np.isnan(seen).any(axis=1)
    return [one for one in against(seen, 0) if ran[one.config]]


def false_claims(studies: int, seeds: int, noise: Noise, case: str, rng: int = 0) -> list[Row]:
    """How often a finalist is called better or worse after the race, where all are equal."""
    generator, claims = np.random.default_rng(rng), 0
    rounds = racing.schedule(TOP, seeds)
    for _ in range(studies):
        seen = racing.run(study(generator, np.zeros(TOP + 1), seeds, noise), rounds)
        claims += any(one.separated for one in claimable(seen))
    return [share("a false claim", f"{seeds} seeds, {case}", claims, studies)]


def power(studies: int, seeds: int, spread: float, effect: float, rng: int = 0) -> list[Row]:
    """How often a config that is better is found: alone so, the others as the default."""
    generator, found = np.random.default_rng(rng), 0
    truth, rounds = np.zeros(TOP + 1), racing.schedule(TOP, seeds)
    for _ in range(studies):
        truth[:] = 0
        truth[generator.integers(1, TOP + 1)] = effect
        seen = racing.run(study(generator, truth, seeds, normal(spread)), rounds)
        better = int(truth.argmax())
        found += any(one.low > 0 for one in claimable(seen) if one.config == better)
    return [share(f"{effect} points found", f"{seeds} seeds, spread {spread}", found, studies)]


def winners(studies: int, seeds: int, spread: float, rng: int = 0) -> list[Row]:
    """How often the race picks the grid's winner, where that leads by over two standard errors."""
    generator, rounds = np.random.default_rng(rng), racing.schedule(TOP, seeds)
    picked = clear = 0
    while clear < studies:
        truth = generator.normal(0, spread * generator.choice([0.0, 0.5, 1.0, 2.0]), TOP + 1)
        grid = study(generator, truth, seeds, normal(spread))
        whole = fit(grid)
        first, second = np.argsort(-whole.means)[:2]
        error = standard_error(whole, int(first), int(second))
        if whole.means[first] - whole.means[second] <= 2 * error:
            continue
        clear += 1
        seen = racing.run(grid, rounds)
        ran = ~np.isnan(seen).any(axis=1)
        picked += int(np.argmax(np.where(ran, fit(seen).means, -np.inf)) == first)
    spent = racing.cost(rounds) / ((TOP + 1) * seeds)
    return [
        share("the grid's winner picked", f"{seeds} seeds", picked, clear),
        Row("share of the grid's runs", f"{seeds} seeds", spent, spent, spent, 1),
    ]


def optimism(studies: int, seeds: int, spread: float, between: float, rng: int = 0) -> list[Row]:
    """What the naive best, the chosen config's mean and what is expected of it say too much.

    A search of `TRIALS` configs whose true values scatter by `between`, one run each, finds the
    candidates; the default is an average config.
    """
    generator, rounds = np.random.default_rng(rng), racing.schedule(TOP, seeds)
    naive, plain, drawn, inside = [], [], [], 0
    for _ in range(studies):
        every = np.concatenate([[0.0], generator.normal(0, between, TRIALS)])
        said = every + generator.normal(0, spread, TRIALS + 1) + generator.normal(0, SEED_SPREAD)
        rows = np.concatenate([[0], 1 + np.argsort(-said[1:])[:TOP]])
        truth = every[rows]
        seen = racing.run(study(generator, truth, seeds, normal(spread)), rounds)
        judged = judge(seen, said[rows])
        one = judged.chosen
        naive.append(said[rows].max() - truth[int(np.argmax(said[rows]))])
        plain.append(judged.means[one].mean - truth[one])
        drawn.append(judged.expected[one] - truth[one])
        inside += judged.means[one].low <= truth[one] <= judged.means[one].high
    case = f"{seeds} seeds, spread {spread}, configs differ by {between}"
    return [
        mean("the search's best says too much", case, naive),
        mean("the chosen one's mean says too much", case, plain),
        mean("what is expected of it says too much", case, drawn),
        share("the chosen one's interval holds", case, inside, studies),
    ]


def table(studies: int) -> list[Row]:
    """Every figure, of so many studies each."""
    rows = []
    for seeds in (3, 5, 10):
        for name, noise in NOISES.items():
            rows += false_claims(studies, seeds, noise(0.3), name)
    for spread in (0.3, 0.5):
        for seeds in (5, 10):
            rows += power(studies, seeds, spread, 0.5)
    for seeds in (3, 5, 10):
        rows += winners(studies, seeds, 0.3)
    for spread in (0.3, 0.5):
        for between in (0.0, 0.2, 0.5):
            rows += optimism(max(2, studies // 4), 5, spread, between)
    return rows


def show_rows(rows: Sequence[Row], file: Path | None) -> None:
    """A line each; as JSON in the file, if one is given."""
    for row in rows:
        print(
            f"{row.what:38} {row.case:48} {row.value:7.4f}  "
            f"({row.low:.4f} to {row.high:.4f}, n = {row.n})"
        )
    if file is not None:
        file.write_text(json.dumps([asdict(row) for row in rows], indent=2))


def main(words: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    rows = table(given.studies)
    show_rows(rows, given.json)
    return rows


if __name__ == "__main__":
    main()
