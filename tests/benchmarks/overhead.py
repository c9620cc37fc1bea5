"""Start of a search to its first report, and a trial's cost beyond its training.

python -m tests.benchmarks.overhead
"""

from studies.overhead import beyond_table, start_table, trial_table
from tests.benchmarks.showing import show
from trainers.rounds import Row

SIDES = (("local", ("--workers", "1")), ("nothing said", ()), ("Ray", ("--workers", "2")))


def main(words: list[str] | None = None, sides: tuple = SIDES, trials: int = 30) -> list[Row]:
    return show(
        "overhead",
        lambda given: [
            *trial_table(trials=trials),
            *beyond_table(),
            *start_table(sides, rounds=given.rounds),
        ],
        words,
    )


if __name__ == "__main__":
    main()
