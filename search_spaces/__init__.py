"""The search spaces: one file, one space; the file's name is the name on the command line.

A user's own space is a Python file of the same form:

    '''One line that `automate spaces` shows.'''

    def starts(base):          # points tried first and never stopped early
        return [{"alpha": 3.0}]

    def suggest(trial, base):  # one trial's config
        return base.with_(alpha=trial.suggest_float("alpha", 0.1, 100, log=True))

    def grid(base):            # optional: the points of `--sampler grid`
        return [{"alpha": value} for value in (0.3, 1.0, 3.0, 10.0, 30.0)]

A space of networks that differ in what they cost says so with two more:

    OBJECTIVE = "hypervolume"  # what is maximised where nothing is said

    def corners(base):         # points between whose networks all others cost
        return [{"width": 0.25}, {"width": 1.0}]
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trainers.catalog import InputError, is_path, unknown
from trainers.config import TrialConfig
from trainers.own import run_file

if TYPE_CHECKING:  # optuna takes a tenth of a second, and listings do not need it
    from optuna.trial import BaseTrial

Point = dict[str, Any]
FORM = {  # what a space has to have
    "starts": "def starts(base): return [{'alpha': 3.0}], the points tried first",
    "suggest": "def suggest(trial, base): "
    "return base.with_(alpha=trial.suggest_float('alpha', 0.1, 100)), one trial's config",
}


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        name: As given on the command line.
        title: First line of the file's docstring.
        starts: base -> points tried first, the paper's default among them.
        suggest: (trial, base) -> the trial's config.
        grid: base -> the points of the grid sampler, or None where the space gives none.
        objective: What is maximised where the user says nothing; None: the usual one.
        corners: base -> points of the cheapest and the dearest networks; None where all networks
            of the space cost what the base's costs.
    """

    name: str
    title: str
    starts: Callable[[TrialConfig], list[Point]]
    suggest: "Callable[[BaseTrial, TrialConfig], TrialConfig]"
    grid: Callable[[TrialConfig], list[Point]] | None
    objective: str | None = None
    corners: Callable[[TrialConfig], list[Point]] | None = None


def names() -> list[str]:
    """The names of the spaces that come with automate, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_space(name: str) -> Space:
    """A space by name, or from a user's Python file (which is run).

    Raises:
        InputError: Unknown name, a file that cannot be run, or one without `starts` and `suggest`.
    """
    if not is_path(name):
        if name not in names():
            raise unknown("space", name, names(), "or a path to a .py file")
        return _space(name, importlib.import_module(f"search_spaces.{name}"))
    return _space(name, run_file("space", name))


def _space(name: str, module: ModuleType) -> Space:
    for needed, form in FORM.items():
        if not callable(getattr(module, needed, None)):
            raise InputError(
                f"space {name!r} needs a function {needed}: {form} "
                '(README, "Your own data, network, scheme and space")'
            )
    first = (module.__doc__ or "").strip().partition("\n")[0]
    title = first or "no description (the docstring of its file)"
    return Space(
        name=name,
        title=title,
        starts=module.starts,
        suggest=module.suggest,
        grid=getattr(module, "grid", None),
        objective=getattr(module, "OBJECTIVE", None),
        corners=getattr(module, "corners", None),
    )
