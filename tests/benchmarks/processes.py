"""Processes x threads, images per second of all together, and memory of each.

python -m tests.benchmarks.processes --nets vgg16 resnet18
"""

from automate.commands.benching import processes
from tests.benchmarks.showing import of_each_net, show
from trainers.bench import Row


def main(words: list[str] | None = None) -> list[Row]:
    return show("processes", of_each_net(processes), words)


if __name__ == "__main__":
    main()
