"""The time that stopping early saves, beside its FLOPs: python -m tests.benchmarks.early."""

from tests.benchmarks.showing import show
from trainers.bench import early_table
from trainers.rounds import Row


def main(words: list[str] | None = None) -> list[Row]:
    return show(
        "early",
        lambda given: early_table(given.nets, rounds=given.rounds, seconds=given.seconds),
        words,
    )


if __name__ == "__main__":
    main()
