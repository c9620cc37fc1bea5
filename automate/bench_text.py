"""Rows of a benchmark as a table. Beside `trainers` it needs rich, which bare GPU machines have."""

from collections.abc import Sequence

from automate.printing import say, say_table
from trainers.rounds import Row


def say_rows(title: str, rows: Sequence[Row]) -> None:
    """A table of rows."""
    dropped = sum(row.dropped for row in rows)
    lines = [
        (
            row.what,
            row.side,
            f"{row.value:,.4g}" if row.value < 100 else f"{row.value:,.0f}",
            row.unit,
            "" if row.ratio is None else f"x{row.ratio:.2f}",
            "" if row.low is None or row.high is None else f"{row.low:.2f} to {row.high:.2f}",
            f"{row.rounds}",
            row.note,
        )
        for row in rows
    ]
    if not any(row.note for row in rows):
        lines = [line[:-1] for line in lines]  # type: ignore[misc]
    heads = ("what", "way", "value", "unit", "ratio", "least to greatest", "rounds", "note")
    say_table(heads[: len(lines[0])], lines, title=title)
    if dropped:
        say(f"Rounds left out, as other processes used the machine: {dropped}.")
