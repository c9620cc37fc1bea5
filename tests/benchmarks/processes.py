"""Processes x threads, images per second of all together, and memory of each.

python -m tests.benchmarks.processes --nets vgg16 resnet18
"""

from studies.machine import cores
from tests.benchmarks.showing import of_each_net, show
from trainers.rounds import Row
from trainers.teams import machine_table


def main(words: list[str] | None = None) -> list[Row]:
    def table(net: str, rounds: int, seconds: float) -> list[Row]:
        return machine_table(net, cores(), rounds, seconds)

    return show("processes", of_each_net(table), words)


if __name__ == "__main__":
    main()
