"""A benchmark as a command: a table on stdout, JSON where `--json FILE` says."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from automate.commands.benching import say_rows
from trainers.bench import NETS, SHORT, Row, machine


def show(
    title: str, make: Callable[[argparse.Namespace], list[Row]], words: list[str] | None = None
) -> list[Row]:
    """Makes a table's rows, prints them, and writes them where that is asked."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(SHORT))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    rows = make(given)
    say_rows(title, rows)
    if given.json is not None:
        content = {"machine": machine(), title: [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return rows
