"""Augmented images per second without training: python -m tests.benchmarks.pipeline."""

from tests.benchmarks.showing import show
from trainers.pipeline import pipeline_table
from trainers.rounds import Row


def main(words: list[str] | None = None, images: int = 10_000) -> list[Row]:
    return show("pipeline", lambda given: pipeline_table(images=images, rounds=given.rounds), words)


if __name__ == "__main__":
    main()
