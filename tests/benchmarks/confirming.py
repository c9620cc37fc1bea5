"""What confirming is worth on recorded runs: how much search and confirmation say too much.

python -m tests.benchmarks.confirming digits --repetitions 500
python -m tests.benchmarks.confirming runs/table.npz --rounds 3

Each repetition draws configs from a table of learning curves, one seed for the search and as many
as the race has rounds for the confirmation; the mean over the other seeds is the truth, which
neither has seen: one seed at the least, so a table of five is enough for three rounds. The search
is a random one at full length; what it thinks best races against the default, the table's first
config. What a seed does to all configs alike is taken out of the table first: it is no one's
optimism, and would only blur it. The repetitions share the table's runs: their interval is of the
drawing alone.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studies import racing
from studies.confirmed import judge
from studies.curve_tables import read_table
from tests.benchmarks.racing import Row, mean, share, show_rows

Values = NDArray[np.float64]


def confirmations(
    values: Values, repetitions: int, trials: int, top: int, rounds: int, rng: int = 0
) -> list[Row]:
    """The figures of so many searches, each confirmed.

    Args:
        values: (C, S) of every config and seed, points; row 0 the default.
        repetitions: Searches.
        trials: Configs of a search, the default among them.
        top, rounds: Of the confirmation.
        rng: Of what is drawn.

    Raises:
        ValueError: Too few configs or seeds.
    """
    count, columns = values.shape
    if columns < rounds + 2 or count < trials:
        raise ValueError(
            f"{trials} configs and {rounds + 2} seeds are needed (one to search with, {rounds} for "
            f"the rounds, one or more for the truth), the table has {count} and {columns}: give "
            "fewer --trials or --rounds"
        )
    values = values - values.mean(axis=0) + values.mean()
    generator, schedule = np.random.default_rng(rng), racing.schedule(top, rounds)
    naive, plain, drawn, gains, naive_gains, before = [], [], [], [], [], []
    claims = right = 0
    for _ in range(repetitions):
        order = generator.permutation(columns)
        searched, confirmed, rest = order[0], order[1 : rounds + 1], order[rounds + 1 :]
        pool = np.concatenate([[0], 1 + generator.choice(count - 1, trials - 1, replace=False)])
        said, truth = values[pool, searched], values[pool][:, rest].mean(axis=1)
        best = 1 + np.argsort(-said[1:], kind="stable")[:top]
        rows = np.concatenate([[0], best])
        seen = racing.run(values[pool[rows]][:, confirmed], schedule)
        judged = judge(seen, said[rows])
        one, first = judged.chosen, int(np.argmax(said[rows]))
        naive.append(said[rows][first] - truth[rows][first])
        plain.append(judged.means[one].mean - truth[rows][one])
        drawn.append(judged.expected[one] - truth[rows][one])
        gains.append(truth[rows][one] - truth[0])
        naive_gains.append(truth[rows][first] - truth[0])
        before.append(truth.max() - truth[rows][one])
        better = [found for found in judged.separated if found.difference > 0]
        claims += bool(better)
        right += bool(better) and all(truth[rows][d.config] > truth[0] for d in better)
    case = f"{trials} trials, top {top}, {rounds} rounds"
    return [
        mean("the search's best says too much", case, naive),
        mean("the chosen one's mean says too much", case, plain),
        mean("what is expected of it says too much", case, drawn),
        mean("the chosen one over the default", case, gains),
        mean("the search's best over the default", case, naive_gains),
        mean("the table's best over the chosen one", case, before),
        share("something called better", case, claims, repetitions),
        share("... and better by the other seeds", case, right, claims),
    ]


def main(words: Sequence[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", help="a name of `automate replay`, or a .npz file")
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--top", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="of the race, a seed each")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    table = read_table(given.table)
    values, rows = 100 * table.values("anytime"), []
    run, between = (100 * spread for spread in table.spreads("anytime"))
    print(
        f"{given.table}: {table.configs} configs, {table.seeds} seeds; from run to run "
        f"{run:.2f} points, between configs {between:.2f}"
    )
    for trials in given.trials:
        try:
            rows += confirmations(values, given.repetitions, trials, given.top, given.rounds)
        except ValueError as error:
            parser.error(str(error))
    show_rows(rows, given.json)
    return rows


if __name__ == "__main__":
    main()
