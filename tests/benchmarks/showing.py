"""A benchmark as a command: a table on stdout, JSON where `--json FILE` says."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from automate.bench_text import say_rows
from trainers.bench import NETS, SHORT, machine
from trainers.rounds import Row


def show(
    title: str,
    make: Callable[[argparse.Namespace], list[Row]],
    words: list[str] | None = None,
    trials: int | None = None,
) -> list[Row]:
    """Makes a table's rows, prints them, and writes them where that is asked.

    Args:
        title: Of the table.
        make: From the flags.
        words: The flags; those of the command if None.
        trials: The default of `--trials`, for those that take it.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(SHORT))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    parser.add_argument("--json", type=Path)
    if trials is not None:
        parser.add_argument("--trials", type=int, default=trials)
    given = parser.parse_args(words)
    rows = make(given)
    say_rows(title, rows)
    if given.json is not None:
        content = {"machine": machine(), title: [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return rows


def of_each_net(
    table: Callable[[str, int, float], list[Row]],
) -> Callable[[argparse.Namespace], list[Row]]:
    """For `show`: one network's table, of a net, rounds and seconds, made of all that are named."""
    return lambda given: [
        row for net in given.nets for row in table(net, given.rounds, given.seconds)
    ]
