"""The command line: names, exit codes, and one line an error.

    0 done    1 failed    2 wrong usage    130 interrupted    143 ended by SIGTERM

The commands lie in `automate.commands` and are imported when they are called or asked for help, so
`automate --help` loads no torch, optuna, ray, plotly or scikit-learn.
"""

import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from types import FrameType
from typing import Any

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnusedCliTokensError,
)
from cyclopts.help import DefaultFormatter
from rich.text import Text

from automate.printing import command, redacted, say, say_error
from trainers.catalog import InputError

INTERRUPTED, FAILED, WRONG = 130, 1, 2
DEBUG = "AUTOMATE_DEBUG"

HELP = """\
Search the self-distillation of multi-exit networks (MATE): alpha, temperature, teachers.

automate search --space diverse_alpha --dataset digits
automate report
automate export --top 3
automate train runs/<study>/best/1.yaml --seeds 3
"""

# name: (where it is, one line of help)
COMMANDS = {
    "search": ("search:search", "Search a space; the same command again goes on."),
    "confirm": ("confirming:confirm", "Confirm a search's best on fresh seeds and hold-outs."),
    "report": ("results:report", "Write a study's report, one HTML file that works offline."),
    "dashboard": ("results:dashboard", "Open a study in optuna-dashboard."),
    "export": ("results:export", "Write the best configs as YAML, or all trials as CSV."),
    "train": ("training:train", "Train an exported config in full, with several seeds."),
    "evaluate": ("measuring:evaluate", "Evaluate a trained run: exits, budgets, calibration."),
    "predict": ("predicting:predict", "Classify image files with a trained network."),
    "reproduce": ("reproduction:reproduce", "Run an experiment of the paper; ours beside it."),
    "calibrate": (
        "calibrating:calibrate",
        "Find out when stopping trials is right, and set it.",
    ),
    "replay": ("replaying:replay", "Compare policies of searching on recorded curves."),
    "bench": ("benching:bench", "Time this machine, and say which path a search takes."),
    "studies": ("results:studies", "List the studies."),
    "status": ("upkeep:status", "Show what of a study runs, waits and failed, and why."),
    "doctor": ("upkeep:doctor", "Look the machine or a study over, and mend what can be."),
    "clean": ("upkeep:clean", "Remove checkpoints that nothing needs."),
    "spaces": ("listings:spaces", "List the search spaces."),
    "datasets": ("listings:datasets", "List the data sets, or fetch one."),
    "schemes": ("listings:schemes", "List the teacher schemes, or show one."),
    "backbones": ("listings:backbones", "List the backbones and what each exit costs."),
    "profile": ("measuring:profile", "Measure latency and memory of each exit."),
}
# What could be given where nothing was.
EXAMPLES = {
    "--space": ", e.g. diverse_alpha (`automate spaces` lists them)",
    "FILE": ", e.g. runs/<study>/best/1.yaml, which `automate export` writes",
    "RUN": ", e.g. runs/<study>/best/1-<digest>, which `automate train` leaves",
    "TABLE": ", e.g. digits",
}
# Given again, they go on where they stopped.
GO_ON = ("search", "confirm", "train", "reproduce", "calibrate")


def version() -> str:
    """Of the installed distribution, or of the checkout that this runs from."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("mate-automate")
    except PackageNotFoundError:
        import tomllib
        from pathlib import Path

        project = Path(__file__).parent.parent / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


class Help(DefaultFormatter):
    """Help as wide as the terminal: the lines of a docstring are no lines of a page.

    A line that is a command stays one.
    """

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        for entry in panel.entries:
            _join(entry.description)
        super().__call__(console, options, panel)

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        _join(description)
        super().render_description(console, options, description)


def _join(described: Any) -> None:
    """Joins the lines of each paragraph, in place."""
    text = getattr(described, "primary_renderable", None)
    if isinstance(text, Text):
        text.plain = re.sub(r"(?<=\S) *\n *(?!\n|automate |$)", " ", text.plain)


def _app(called: str | None) -> App:
    """All commands; the called one brings its own help, the others are not imported for theirs."""
    made = App(
        name="automate",
        help=HELP,
        version=version,
        help_format="plaintext",
        help_formatter=Help(),
        suppress_keyboard_interrupt=False,
    )
    for number, (name, (place, line)) in enumerate(COMMANDS.items()):
        said = None if name == called else line
        made.command(f"automate.commands.{place}", name=name, help=said, sort_key=number)
    return made


def run(words: Sequence[str]) -> int:
    """Runs a command line in this process.

    Args:
        words: Without the program's name.

    Returns:
        The exit code. What goes wrong is one line on stderr; the traceback of what was not
        foreseen is shown if AUTOMATE_DEBUG is set.
    """
    if sys.platform == "win32":  # no locks on files of the kind that studies and caches need
        say_error("automate runs on Linux and macOS; on Windows, run it in WSL")
        return FAILED
    try:
        app = _app(words[0] if words else None)
        code = app(
            list(words), exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()
        return int(code or 0)
    except CycloptsError as error:
        say_error(_usage(error))
        return WRONG
    except InputError as error:
        say_error(error)
        return FAILED if _is_failure(error) else WRONG
    except KeyboardInterrupt:
        say_error("interrupted")
        _say_how_to_go_on(words)
        return INTERRUPTED
    except SystemExit as error:
        if isinstance(error.code, int) and error.code > 128:  # `_stop`
            say_error(f"ended by signal {error.code - 128}")
            _say_how_to_go_on(words)
        raise
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if os.environ.get(DEBUG):
            sys.stderr.write(redacted(traceback.format_exc()))
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        hint = "" if os.environ.get(DEBUG) else f" ({DEBUG}=1 shows where)"
        say_error(f"failed: {text[:500]}{hint}")
        return FAILED


def _say_how_to_go_on(words: Sequence[str]) -> None:
    """The same command, but for `--fresh`, which would start over."""
    if words and words[0] in GO_ON:
        again = [word for word in words if word.partition("=")[0] != "--fresh"]
        say(f"Go on with:\n  {command(*again)}", stderr=True)


def _is_failure(error: InputError) -> bool:
    """Whether a storage failed, which is no wrong usage. It is loaded if it could."""
    storage = sys.modules.get("studies.storage")
    return storage is not None and isinstance(error, storage.StorageError)


def _usage(error: CycloptsError) -> str:
    """What is wrong with the command line, one line, with the nearest name and where to look."""
    error.verbose = False
    chain = list(error.command_chain or [])
    where = f"`{command(*chain, '--help')}`"
    if isinstance(error, UnknownCommandError):
        given = (error.unused_tokens or ["?"])[0]
        if given.startswith("-"):
            return f"unknown option {given}; see {where}"
        nearest = get_close_matches(given, COMMANDS, n=1)
        guess = f"; did you mean '{nearest[0]}'?" if nearest else f"; see {where}"
        return f"unknown command {given!r}: known are {', '.join(COMMANDS)}{guess}"
    name = error.argument.name if error.argument is not None else ""
    if isinstance(error, UnusedCliTokensError):
        text = f"unexpected argument {(error.unused_tokens or ['?'])[0]!r}"
    elif isinstance(error, MissingArgumentError) and name:
        text = f"{name} needs a value{EXAMPLES.get(name, '')}"
    else:
        text = str(error).strip().replace("Unknown option: ", "unknown option ").rstrip(".")
        text = text[0].lower() + text[1:]
    return f"{text} See {where}" if text.endswith("?") else f"{text}; see {where}"


_asked: int | None = None  # the signal that asked us to end


def _stop(number: int, frame: FrameType | None) -> None:
    """Makes a signal an orderly end, in which a search gives its trials back; a second one ends it.

    Nothing is lost by that either: the next search takes over what was left.
    """
    global _asked
    if _asked is not None:
        say_error("ended at once")
        _say_how_to_go_on(sys.argv[1:])
        os._exit(128 + number)
    _asked = number
    heed_signals()


def heed_signals() -> None:
    """Raises what a signal asked for: Python swallows that where it comes in a destructor."""
    if _asked == signal.SIGINT:
        raise KeyboardInterrupt
    if _asked is not None:
        raise SystemExit(128 + _asked)


def _unraisable(failed: "sys.UnraisableHookArgs") -> None:
    """What a destructor raised; an end that was asked for comes again, by `heed_signals`."""
    if not (_asked and failed.exc_type in (KeyboardInterrupt, SystemExit)):
        sys.__unraisablehook__(failed)


def main() -> None:
    """The program `automate`."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _stop)
    sys.unraisablehook = _unraisable
    sys.exit(run(sys.argv[1:]))
