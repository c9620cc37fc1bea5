"""Peak memory of a process that trains, plain and ours: python -m tests.benchmarks.memory."""

from tests.benchmarks.showing import of_each_net, show
from trainers.rounds import Row
from trainers.teams import Team, best_precision, team_table


def table(net: str, rounds: int, seconds: float) -> list[Row]:
    """One process at a time, as memory is not shared; only the rows about it."""
    best = best_precision(net)
    teams = [Team("plain", 1, 1, plain=True), Team(f"ours, {best}", 1, 1, best)]
    rows = team_table(net, teams, rounds=rounds, seconds=seconds)
    return [row for row in rows if row.unit.startswith("MB")]


def main(words: list[str] | None = None) -> list[Row]:
    return show("memory", of_each_net(table), words)


if __name__ == "__main__":
    main()
