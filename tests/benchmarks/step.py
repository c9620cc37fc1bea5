"""A training step per net, path and scheme: python -m tests.benchmarks.step --nets vgg16."""

from tests.benchmarks.showing import show
from trainers.bench import step_table
from trainers.rounds import Row


def main(words: list[str] | None = None) -> list[Row]:
    return show(
        "step",
        lambda given: step_table(given.nets, rounds=given.rounds, seconds=given.seconds),
        words,
    )


if __name__ == "__main__":
    main()
