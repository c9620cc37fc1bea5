"""What the intervals of exits and the front's probabilities are worth, on drawn confirmations.

python -m tests.benchmarks.fronts --studies 300

Drawn are images of different difficulty, configs that differ, runs that scatter: whether an exit of
a run has an image right is a threshold of their sum, so that the true accuracy on all images and
all seeds is known. Hold-outs come from one pool, as of a real data set. Counted are, once with the
seeds drawn anew alone and once with the images too, how often the 95 % intervals of the finalists'
exits hold the truth, and how often points that are given about a probability are on the front.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from studies import racing
from studies.resampling import HitsOf, on_front, points
from tests.benchmarks.racing import Row, mean, share, show_rows
from trainers.hits import Hits

Values = NDArray[np.float64]

EXITS = np.array([-0.06, -0.03, 0.0, 0.003])  # the deepest two are nearly alike
OWN, RUN, EXIT = 0.25, 0.6, 0.3  # spreads of an image: per config, per run, per exit of a run


@dataclass(frozen=True)
class Case:
    """Confirmations to draw.

    Attributes:
        name: For people.
        seeds, configs: Of the race, the default counted.
        pool, held: Images that there are, and of a hold-out.
        accuracy: Of the third exit, fraction.
        between: Spread of the configs' true accuracies, points.
    """

    name: str
    seeds: int = 5
    configs: int = 9
    pool: int = 8_000
    held: int = 800
    accuracy: float = 0.75
    between: float = 1.0


CASES = (
    Case("a tenth held out"),
    Case("a tenth held out, configs nearly alike", between=0.2),
    Case("a tenth held out, configs far apart", between=3.0),
    Case("as the digits: four fifths held out", pool=897, held=717, accuracy=0.93, between=0.5),
    Case("a tenth held out, 3 seeds", seeds=3, configs=5),
    Case("as the digits, 3 seeds", 3, 5, 897, 717, 0.93, 0.5),
)


def study(rng: np.random.Generator, case: Case) -> tuple[Values, Values, HitsOf]:
    """The truth (C, M) in %, the accuracies (C, S, M) of a race, and what its runs had right."""
    c, s, m = case.configs, case.seeds, len(EXITS)
    by_run, by_seed = 0.05, 0.02
    spread = np.sqrt(1 + OWN**2 + RUN**2 + EXIT**2 + by_run**2 + by_seed**2)
    middle = norm.ppf(case.accuracy)
    points_each = 100 * norm.pdf(middle)
    differs = rng.normal(0, case.between, (c, 1)) + rng.normal(0, case.between / 2, (c, m))
    goal = (norm.ppf(case.accuracy + EXITS) + differs / points_each) * spread
    easy, own = rng.normal(0, 1, case.pool), rng.normal(0, OWN, (c, case.pool))
    exits, hits = np.full((c, s, m), np.nan), {}
    for this in range(s):
        rows = np.sort(rng.choice(case.pool, case.held, replace=False))
        seed = rng.normal(0, by_seed)
        for config in range(c):
            each = easy[rows] + own[config, rows] + rng.normal(0, RUN, case.held)
            each = each + rng.normal(0, EXIT, (m, case.held)) + rng.normal(0, by_run) + seed
            hits[config, this] = Hits(rows, goal[config][:, None] + each > 0)
            exits[config, this] = 100 * hits[config, this].right.mean(axis=1)
    seen = racing.run(exits.mean(axis=2), racing.schedule(c - 1, s))
    exits[np.isnan(seen)] = np.nan
    ran = {key: one for key, one in hits.items() if not np.isnan(seen[key])}
    return 100 * norm.cdf(goal / spread), exits, ran


def figures(studies: int, case: Case, rng: int = 0) -> list[Row]:
    """The figures of a case, of so many confirmations."""
    generator = np.random.default_rng(rng)
    flops = np.tile(np.arange(1.0, len(EXITS) + 1), (case.configs, 1))
    held: dict[str, list[float]] = {"seeds": [], "seeds and images": []}
    half: dict[str, list[float]] = {name: [] for name in held}
    shares: dict[str, list[Values]] = {name: [] for name in held}
    fronts = []
    for _ in range(studies):
        truth, exits, hits = study(generator, case)
        finalists = np.flatnonzero(~np.isnan(exits[:, -1, 0]))
        fronts.append(on_front(truth[None], flops).reshape(-1) > 0)
        for name, known in (("seeds", None), ("seeds and images", hits)):
            found = points(exits, flops, known)
            ends = [(found.means[c][k], truth[c, k]) for c in finalists for k in range(len(EXITS))]
            held[name].append(float(np.mean([e.low <= true <= e.high for e, true in ends])))
            half[name].append(float(np.mean([e.half for e, _ in ends])))
            shares[name].append(found.on_front.reshape(-1))
    true, rows = np.concatenate(fronts), []
    for name in held:
        rows.append(mean(f"{name}: share of intervals that hold", case.name, held[name]))
        rows.append(mean(f"{name}: ±, points", case.name, half[name]))
        said = np.concatenate(shares[name])
        rows.append(mean(f"{name}: Brier score", case.name, list((said - true) ** 2)))
        for low, high in ((0, 0.05), (0.05, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.01)):
            some = (low <= said) & (said < high)
            if some.any():
                what = f"{name}: on the front, given {said[some].mean():.2f}"
                rows.append(share(what, case.name, int(true[some].sum()), int(some.sum())))
    return rows


def main(words: Sequence[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    rows = [row for case in CASES for row in figures(given.studies, case)]
    show_rows(rows, given.json)
    return rows


if __name__ == "__main__":
    main()
