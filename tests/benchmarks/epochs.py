"""Epochs on a GPU, alone and together: python -m tests.benchmarks.epochs --nets vgg16 resnet18.

Without a GPU it shows only that it runs.
"""

import torch

from tests.benchmarks.showing import show
from trainers.epochs import begin_table, epoch_table
from trainers.rounds import Row


def main(words: list[str] | None = None, images: int = 50_000) -> list[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = images if device == "cuda" else 256
    return show(
        "epochs",
        lambda given: [
            row
            for net in given.nets
            for row in (
                *epoch_table(net, device=device, images=images, rounds=given.rounds),
                *begin_table(net, device=device, images=images),
            )
        ],
        words,
    )


if __name__ == "__main__":
    main()
