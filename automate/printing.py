"""What is printed: text, tables and JSON, with nothing in a user's names taken for markup.

Results go to stdout. Errors, and with `--json` whatever is not the JSON, go to stderr.
"""

import json
import re
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

WIDE = 10_000  # columns where no terminal breaks the lines
WORD = 24  # columns; only longer words, as of paths, are cut in a table


def console(stderr: bool = False) -> Console:
    """A console on the stream as it is now; off a terminal no line is ever broken."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else WIDE,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=True,
    )


def redacted(text: str) -> str:
    """The text with *** for the password of every URL in it."""
    text = re.sub(r"(\w://[^\s:/@]*):\S*@", r"\1:***@", text)
    return re.sub(
        r"(?i)([?&][^\s=&]*(?:pass|pwd|secret|token|key)[^\s=&]*=)(?!\*\*\*)[^\s&]+", r"\1***", text
    )


def clean(text: object) -> Text:
    """Text as it is: no markup, no password, and no character that could steer a terminal."""
    shown = "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1]
        for letter in redacted(str(text))
    )
    return Text(shown)


def wrapped(text: str, width: int, hang: int = 0) -> str:
    """Lines broken at spaces where they are too wide; a word that is too long stays whole.

    Args:
        text: Lines; one that begins with two spaces is a command to copy and stays as it is.
        width: Columns that there are.
        hang: Columns before the text; all lines but the first begin with as many spaces.
    """
    found = []
    for line in text.split("\n"):
        if line.startswith("  ") or hang + cell_len(line) <= width:
            found.append(line)
            continue
        made = ""
        for word in re.findall(r"\S+(?: %\S*)?", line):  # `93.41 %` is one
            longer = f"{made} {word}" if made else word
            if made and hang + cell_len(longer) > width:
                found.append(made)
                made = word
            else:
                made = longer
        found.append(made)
    return ("\n" + " " * hang).join(found)


def _room(screen: Console) -> int | None:
    """Columns of a terminal; None where there is none and no line is broken."""
    return screen.width if screen.file.isatty() else None


def say(text: object = "", *, style: str = "", stderr: bool = False) -> None:
    """Paragraphs, on a terminal wrapped at words.

    A line that begins with two spaces is a command, which is never broken: it can be copied.
    """
    screen = console(stderr)
    line, room = clean(text), _room(screen)
    if room is not None:
        line = Text(wrapped(line.plain, room))
    line.stylize(style)
    screen.print(line)


def say_error(text: object) -> None:
    """One line on stderr, whatever the text has."""
    say(f"automate: {' '.join(str(text).split())}", stderr=True)


@contextmanager
def patience(text: str, *, after: float = 3.0, quiet: bool = False) -> Iterator[None]:
    """Says on a terminal what takes so long, if it does.

    Args:
        text: What is done.
        after: Seconds from which it is said.
        quiet: Never.
    """
    timer = threading.Timer(after, say, (text,), {"stderr": True})
    timer.daemon = True
    if not quiet and sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def say_table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str = "",
    stderr: bool = False,
) -> None:
    """A table; see `Fitted`."""
    if title:
        say(title, style="bold", stderr=stderr)
    console(stderr).print(Fitted(head, rows))


class Fitted:
    """A table as wide as there is room for: numbers and words are never cut in two.

    What does not fit side by side is said row by row, a line for each cell, or without the last
    columns.
    """

    def __init__(
        self, head: Sequence[str], rows: Sequence[Sequence[object]], *, stack: bool = True
    ) -> None:
        """A table; columns of numbers stand right.

        Args:
            head: Names of the columns.
            rows: Cells, a row as long as the head.
            stack: Row by row where it does not fit; else the last columns are left out.
        """
        self.head = [clean(name) for name in head]
        self.rows = [[clean(cell) for cell in row] for row in rows]
        self.stack = stack
        columns = [[row[i].plain for row in self.rows] for i in range(len(head))]
        self.numbers = [
            any(column) and all(re.match(r"[-+±−\d.]|$", text) for text in column)
            for column in columns
        ]
        self.widths = [
            max(map(cell_len, (name.plain, *column)), default=0)
            for name, column in zip(self.head, columns, strict=True)
        ]
        self.least = [
            max(
                min(self.widths[i], WORD, max(map(_longest_word, (name.plain, *columns[i])))),
                max(map(cell_len, columns[i]), default=0) if self.numbers[i] else 0,
                0 if stack else min(self.widths[i], WORD),  # a tall row is worse than none
            )
            for i, name in enumerate(self.head)
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        count = len(self.head)

        def room() -> int:
            return options.max_width - 3 * count - 1  # what stands between the columns is no room

        while not self.stack and count > 1 and sum(self.least[:count]) > room():
            count -= 1
        if sum(self.least[:count]) <= room() or not self.stack:
            yield self._table(narrowed(self.widths[:count], self.least, room()))
        else:
            yield from self._blocks(options.max_width)

    def _table(self, widths: Sequence[int]) -> Table:
        """The first columns, as many as there are widths."""
        made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
        for name, number, width in zip(self.head, self.numbers, widths, strict=False):
            side: Literal["left", "right"] = "right" if number else "left"
            made.add_column(name, justify=side, overflow="fold", width=width)
        for row in self.rows:
            made.add_row(*row[: len(widths)])
        return made

    def _blocks(self, room: int) -> Iterator[Text]:
        named = 1 if self.head[0].plain else 2  # a column without a name belongs to the next
        wide = max(cell_len(name.plain) for name in self.head)
        for row in self.rows:
            yield Text(" ".join(cell.plain for cell in row[:named]).strip(), style="bold")
            for name, cell in zip(self.head[named:], row[named:], strict=True):
                if cell.plain:
                    text = wrapped(cell.plain, room, hang=wide + 4)
                    yield Text(f"  {name.plain:<{wide}}  {text}")


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


def narrowed(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of columns that together fit: the widest gives way first, none below its least."""
    made = list(widths)
    while sum(made) > room:
        able = [i for i in range(len(made)) if made[i] > least[i]]
        if not able:
            break
        made[max(able, key=lambda i: made[i])] -= 1
    return made


def say_pairs(pairs: Mapping[str, object], *, stderr: bool = False) -> None:
    """Names and values below each other; on a terminal a long value goes on below itself."""
    width = max(map(len, pairs), default=0)
    screen = console(stderr)
    room = _room(screen)
    for name, value in pairs.items():
        text = clean(value).plain
        if room is not None:
            text = wrapped(text, room, hang=width + 4)
        screen.print(Text.assemble((f"  {name:<{width}}  ", "bold"), text))


def say_json(value: Any) -> None:
    """JSON alone on stdout. Never a password: URLs are redacted in every text, names too."""
    # Before they are quoted: what follows a password would be taken for a part of it.
    text = json.dumps(_safe(value), indent=2, allow_nan=False, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no text: escaped, it is still JSON
        text = json.dumps(_safe(value), indent=2, allow_nan=False)
    print(text, flush=True)


def _safe(value: Any) -> Any:
    """What JSON has, without passwords; paths are text and records their fields."""
    if isinstance(value, str | Path):
        return redacted(str(value))
    if isinstance(value, Mapping):
        return {_safe(name): _safe(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_safe(item) for item in value]
    if value is None or isinstance(value, int | float):
        return value
    return _safe(value.model_dump(mode="json"))


def program() -> str:
    """How this program was started: `automate`, or `python -m automate`."""
    return "python -m automate" if sys.argv[0].endswith("__main__.py") else "automate"


def command(*words: object) -> str:
    """A command line to copy, without passwords: `automate train runs/x/best/1.yaml`."""
    # Word by word, since a password may hold spaces.
    safe = (redacted(re.sub(r"(?s)(\w://[^\s:/@]*):.*@", r"\1:***@", str(word))) for word in words)
    return f"{program()} {shlex.join(safe)}"


def duration(seconds: float) -> str:
    """`40 s`, `3 min 20 s`, `2 h 5 min`, `3 days 4 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    for limit, big, unit, small, rest in (
        (3600, 60, "min", 1, "s"),
        (86_400, 3600, "h", 60, "min"),
        (float("inf"), 86_400, "days", 3600, "h"),
    ):
        if whole < limit:
            left = whole % big // small
            name = "day" if unit == "days" and whole // big == 1 else unit
            return f"{whole // big:,} {name}" + (f" {left} {rest}" if left else "")
    raise AssertionError


def size(count: float) -> str:
    """Bytes, decimal: `3.2 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
