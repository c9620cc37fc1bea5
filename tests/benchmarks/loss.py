"""The loss alone, time and ATen operations: python -m tests.benchmarks.loss."""

from tests.benchmarks.showing import show
from trainers.bench import loss_table
from trainers.rounds import Row


def main(words: list[str] | None = None) -> list[Row]:
    return show("loss", lambda given: loss_table(rounds=given.rounds, seconds=given.seconds), words)


if __name__ == "__main__":
    main()
