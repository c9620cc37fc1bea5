"""Nothing that a user names is markup, steers a terminal, or gives a password away."""

import io
import json
import re
import threading
from pathlib import Path

import pytest
from rich.console import Console

from automate import printing
from trainers.config import TrialConfig


@pytest.mark.parametrize("text", ["[red]x", "[/red]", ":smile:", "[link=http://x]y[/link]", "a[0]"])
def test_markup_is_text(capsys, text):
    printing.say(text)
    printing.say_table(["name"], [[text]], title=text)
    printing.say_pairs({"name": text})
    assert capsys.readouterr().out.count(text) == 4


def test_control_characters_are_shown_not_sent(capsys):
    printing.say("a\x1b[31mb\x07c")
    printing.say_table(["x"], [["\x1b]0;title\x07"]])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert r"a\x1b[31mb\x07c" in out


def test_passwords_are_not_printed(capsys):
    url = "postgresql://user:pa:ss@w@host/base"
    printing.say(f"at {url}")
    printing.say_error(url)
    printing.say_json({"url": url})
    out, err = capsys.readouterr()
    assert "pa:ss" not in out + err
    assert "user:***@host/base" in out
    assert "user:***@host/base" in err


def test_json_without_its_passwords_is_valid(capsys):
    url = "postgresql://user:pa:ss@w@host/base?password=pa:ss"
    words = [url, Path("/at/host?token=pa:ss"), {url: "pass", "at": "a@b"}]
    config = TrialConfig(dataset=f"./{url}", classes=2, image_size=32, backbone="vgg16")
    printing.say_json({"words": words, "config": config})
    out, _ = capsys.readouterr()
    found = json.loads(out)
    assert "pa:ss" not in out
    safe = "postgresql://user:***@host/base?password=***"
    assert found["words"] == [safe, "/at/host?token=***", {safe: "pass", "at": "a@b"}]
    assert found["config"]["dataset"] == f"./{safe}"


def test_a_command_that_was_redacted_keeps_its_quotes(capsys):
    words = ["search", "--storage", "postgresql://host/base?password=it's"]
    printing.say(printing.command(*words))
    out, _ = capsys.readouterr()
    assert "'postgresql://host/base?password=***'" in out and "it's" not in out


def test_an_error_is_one_line(capsys):
    printing.say_error("first\n  second\tthird")
    assert capsys.readouterr() == ("", "automate: first second third\n")


def test_off_a_terminal_no_line_is_broken(capsys):
    printing.say("word " * 100)
    printing.say_table(["x"], [["word " * 100]])
    printing.say_pairs({"x": "word " * 100})
    lines = [line for line in capsys.readouterr().out.splitlines() if "word" in line]
    assert len(lines) == 3


class Terminal(io.StringIO):
    """A screen; what is written can be read, without colours."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        return re.sub(r"\x1b\[[\d;]*m", "", self.getvalue()).splitlines()


def a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> Terminal:
    """Stdout as a terminal from now on."""
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    return screen


PROSE = "Trial 12 is reliably better than the default (93.41 %): it gains 0.31 points of accuracy. "


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_terminal_breaks_prose_at_words_and_leaves_commands_whole(monkeypatch, width):
    terminal = a_terminal(monkeypatch, width)
    words = (3 * PROSE).strip()
    copied = "  automate search " + "--space diverse_alpha " * 10
    printing.say(f"{words}\n{copied}", style="bold")
    *said, last = terminal.lines
    assert last == copied and len(said) > 1
    assert max(map(len, said)) <= width
    assert " ".join(said) == words
    assert not any(line.startswith("%") for line in said)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_terminal_breaks_the_values_of_a_plan_below_themselves(monkeypatch, width):
    terminal = a_terminal(monkeypatch, width)
    printing.say_pairs({"study": "s", "early stopping": 3 * PROSE, "path": "/" + "x" * 150})
    first, *wide, path = terminal.lines
    assert first == "  study           s"
    assert len(wide) > 1 and max(map(len, wide)) <= width
    assert wide[0].startswith("  early stopping  Trial 12")
    assert all(line[:18] == " " * 18 and line[18] != " " for line in wide[1:])
    assert path.endswith("x" * 150), "a path stays whole"


def test_a_row_that_is_said_line_by_line_wraps_below_itself():
    stream = io.StringIO()
    table = printing.Fitted(["name", "what it is", *"abcdefghij"], [["x", PROSE, *10 * ["0.123"]]])
    Console(file=stream, width=60, soft_wrap=True).print(table)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[1].startswith("  what it is  Trial 12") and lines[2].startswith(" " * 14)


def test_json_is_valid_and_unescaped(capsys):
    printing.say_json({"α": [1.5, None, "x"]})
    out = capsys.readouterr().out
    assert json.loads(out) == {"α": [1.5, None, "x"]}
    assert "α" in out


def test_numbers_stand_right(capsys):
    printing.say_table(["n", "name"], [["1", "a"], ["100", "bcd"]])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("   1   a") for line in lines)


HEAD = ["config", "runs", "anytime accuracy (%)", "exit 1 (%)", "exit 2 (%)", "what it is"]
ROW = ["trial 2", "2", "87.90 ± 5.96", "84.66 ± 8.49", "87.59 ± 28.93", "taken from somewhere"]


def drawn(width: int, stack: bool = True) -> list[str]:
    """The lines of a table on a terminal that is so wide."""
    stream = io.StringIO()
    Console(file=stream, width=width, soft_wrap=True).print(
        printing.Fitted(HEAD, [ROW, ["the paper's default", *ROW[1:]]], stack=stack)
    )
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 95, 110, 140])
def test_a_narrow_terminal_cuts_no_number_and_no_word(width):
    lines = drawn(width)
    assert max(map(len, lines)) <= width
    for part in [*ROW[2:5], "somewhere", "accuracy", "default"]:
        assert any(part in line for line in lines), part


def test_what_does_not_fit_is_said_row_by_row():
    assert drawn(60)[:3] == [
        "trial 2",
        "  runs                  2",
        "  anytime accuracy (%)  87.90 ± 5.96",
    ]
    assert any("anytime" in line and "runs" in line for line in drawn(110))


@pytest.mark.parametrize(
    ("width", "last"),
    [(140, "what it is"), (90, "exit 2 (%)"), (60, "anytime accuracy (%)"), (45, "runs")],
)
def test_the_live_table_stays_a_table_and_leaves_out_what_does_not_fit(width, last):
    lines = drawn(width, stack=False)
    assert max(map(len, lines)) <= width
    shown = HEAD[: HEAD.index(last) + 1]
    assert lines[1].split() == " ".join(shown).split()
    for cells in (ROW, ["the paper's default", *ROW[1:]]):
        assert any(line.split() == " ".join(cells[: len(shown)]).split() for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86_400, "1 day"),
        (86_400 * 3 + 4 * 3600, "3 days 4 h"),
        (86_400 * 5000, "5,000 days"),
    ],
)
def test_durations(seconds, text):
    assert printing.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (3.2e6, "3.2 MB"), (5e13, "50.0 TB")]
)
def test_sizes(count, text):
    assert printing.size(count) == text


@pytest.mark.parametrize(
    ("started", "name"),
    [("/usr/bin/automate", "automate"), ("/x/automate/__main__.py", "python -m automate")],
)
def test_commands_are_quoted_and_named_as_started(monkeypatch, started, name):
    monkeypatch.setattr("sys.argv", [started])
    assert (
        printing.command("train", "a b.yaml", "--seeds", 3) == f"{name} train 'a b.yaml' --seeds 3"
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_on_a_terminal_it_is_said_what_takes_long(capsys, monkeypatch, terminal):
    said = threading.Event()
    monkeypatch.setattr("automate.printing.say", lambda *_, **__: said.set())
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    with printing.patience("measuring", after=0.0):
        assert said.wait(10 if terminal else 0.1) == terminal
    said.clear()
    with (
        printing.patience("measuring", after=30.0),
        printing.patience("measuring", after=0.0, quiet=True),
    ):
        assert not said.wait(0.05)
