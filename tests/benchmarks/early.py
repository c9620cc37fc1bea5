"""The time that stopping early saves, beside its FLOPs: python -m tests.benchmarks.early."""

from tests.benchmarks.showing import of_each_net, show
from trainers.bench import early_table
from trainers.rounds import Row


def main(words: list[str] | None = None) -> list[Row]:
    return show("early", of_each_net(early_table), words)


if __name__ == "__main__":
    main()
