"""A user's own teacher scheme: whether its matrices are some, at the α and the exits of a config.

Torch-free, as `trainers.schemes` is, which reads the file.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trainers.catalog import InputError, shortened, unknown
from trainers.own import told

if TYPE_CHECKING:
    from trainers.schemes import Matrix, Scheme

    Function = Callable[[Sequence[float]], Matrix]

MIXES = {  # the weight networks that come along, and how many teachers each composes
    "attention": "one teacher an exit",
    "gates": "one teacher an exit",
    "peers": "one teacher an exit",
    "gate": "one teacher",
}
CLOSE = 1e-6  # of a sum of rounded shares to one
FUNCTION = "a function of alpha that gives the matrix, as in"


def check_parts(file: str, scheme: "Scheme") -> None:
    """Whether the parts of a scheme are of the kinds that they should be.

    Args:
        file: Of the user.
        scheme: As the file has it.

    Raises:
        InputError: One is not.
    """
    if not isinstance(scheme.title, str) or not scheme.title.strip():
        raise _refused(file, f"the title needs to be a text, got {scheme.title!r:.60}")
    for name in ("weights", "teacher_weights", "best"):
        part = getattr(scheme, name)
        if not callable(part) and (part is not None or name == "weights"):
            raise _refused(
                file, f"{name} needs to be {FUNCTION} lambda alpha: [[1.0]] * len(alpha), got "
                f"{type(part).__name__}"
            )  # fmt: skip
    if hasattr(scheme.mix, "forward") and not isinstance(scheme.mix, type):
        made = type(scheme.mix).__name__
        raise _refused(file, f"mix needs to be the class {made} itself: it is built for each run")
    if not callable(scheme.mix) and not isinstance(scheme.mix, str):
        raise _refused(
            file, f"mix needs to be {FUNCTION} lambda alpha: [[1 / len(alpha)] * len(alpha)], the "
            f"name of a weight network or a class of one, got {type(scheme.mix).__name__}"
        )  # fmt: skip
    if isinstance(scheme.mix, str) and scheme.mix not in MIXES:
        known = unknown("weight network", scheme.mix, MIXES, "or a torch.nn.Module of your own")
        raise _refused(file, str(known))
    for name in ("alpha", "anneals"):
        if not isinstance(getattr(scheme, name), bool):
            raise _refused(file, f"{name} needs to be True or False, got {getattr(scheme, name)!r}")
    if not _number(scheme.labels) or scheme.labels < 0:
        raise _refused(file, f"labels needs to be a number from 0 on, got {scheme.labels!r:.60}")
    if not isinstance(scheme.least_exits, int):
        raise _refused(file, f"least_exits needs to be a whole number, got {scheme.least_exits!r}")
    if not (scheme.multi_exit and scheme.teaches):
        raise _refused(file, "exits are what it teaches: leave out multi_exit and teaches")


def check(
    file: str, scheme: "Scheme", alpha: Sequence[float], alpha_teacher: Sequence[float]
) -> None:
    """Whether the loss can be computed from a scheme whose parts are right.

    Args:
        file: Of the user.
        scheme: As the file has it.
        alpha: α, M values.
        alpha_teacher: α' of the teachers, M values.

    Raises:
        InputError: A function of it fails, or gives no matrix of the right shape, or another one
            when it is asked again; a mix whose rows do not sum to one; a negative weight; no weight
            at all; a weight network that composes another number of teachers; teachers that
            nothing trains; or matrices that change with an α that the scheme does not say it reads,
            or that do not with one that it says it does.
    """
    exits = len(alpha)
    w = _matrix(file, "weights", scheme.weights, alpha, rows=exits)
    teachers = len(w[0])
    v = w
    if scheme.teacher_weights is not None:
        v = _matrix(file, "teacher_weights", scheme.teacher_weights, alpha_teacher, rows=exits)
        if len(v[0]) != teachers:
            raise _refused(
                file, f"teacher_weights has {len(v[0])} columns, weights has {teachers}: expected "
                "one a teacher in both"
            )  # fmt: skip
    for name, weights in (("weights", w), ("teacher_weights", v)):
        if any(value < 0 for row in weights for value in row):
            raise _refused(file, f"{name} has a negative value: an exit would run from its teacher")
    if not any(value for row in w for value in row):
        raise _refused(
            file, "no exit learns from any teacher (weights has nothing but zeros): that is "
            "--scheme branchynet"
        )  # fmt: skip
    if scheme.learned:
        _check_network(file, scheme, v)
    else:
        _check_mix(file, "mix", scheme.mix, alpha_teacher, teachers)
    if scheme.best is not None:
        _check_mix(file, "best", scheme.best, alpha_teacher, teachers)
    _check_alpha(file, scheme, alpha)


def _check_network(file: str, scheme: "Scheme", v: "Matrix") -> None:
    """A weight network: of as many teachers as W has, each learning from an exit."""
    exits, teachers = len(v), len(v[0])
    if isinstance(scheme.mix, str) and teachers != (1 if scheme.mix == "gate" else exits):
        of = MIXES[scheme.mix] + (f", here {exits}" if scheme.mix != "gate" else "")
        raise _refused(
            file, f"weights has {teachers} columns, one a teacher, but {scheme.mix!r} composes {of}"
        )  # fmt: skip
    if scheme.best is None and any(sum(column) == 0 for column in zip(*v, strict=True)):
        raise _refused(
            file, "a teacher learns from no exit (a column of zeros in its weights), so nothing "
            "trains its mix: give teacher_weights, or a fixed mix"
        )  # fmt: skip


def _check_mix(
    file: str, name: str, made: "Function | str", alpha: Sequence[float], teachers: int
) -> None:
    assert callable(made)
    mix = _matrix(file, name, made, alpha, rows=teachers, columns=len(alpha))
    for number, row in enumerate(mix, 1):
        if abs(sum(row) - 1) > CLOSE:
            raise _refused(
                file, f"{name}: row {number} sums to {sum(row):g}, expected 1: how the exits "
                "compose that teacher"
            )  # fmt: skip


def _check_alpha(file: str, scheme: "Scheme", alpha: Sequence[float]) -> None:
    """Whether the matrices change with α where, and only where, the scheme says so."""
    functions = {"weights": scheme.weights, "teacher_weights": scheme.teacher_weights}
    if not scheme.learned:
        assert callable(scheme.mix)
        functions["mix"] = scheme.mix
    # Below, about and above what is searched; no ratio of two exits stays.
    others = [[at * (1 + 0.1 * i) for i in range(len(alpha))] for at in (0.1, 2.0, 100.0)]
    changing = []
    for name, made in functions.items():
        if made is None:
            continue
        here, again = (_plain(made(tuple(alpha))) for _ in range(2))
        if here != again:
            raise _refused(file, f"{name} gives another matrix each time that it is asked")
        with contextlib.suppress(Exception):  # of some α alone, which is said where one is asked
            if any(_plain(made(tuple(other))) != here for other in others):
                changing.append(name)
    if changing and not scheme.alpha:
        raise _refused(file, f"{changing[0]} changes with alpha: say so, Scheme(..., alpha=True)")
    if scheme.alpha and not changing and not isinstance(scheme.mix, type):
        raise _refused(file, "nothing of it changes with alpha: leave out alpha=True")


def _matrix(
    file: str,
    name: str,
    made: "Function",
    alpha: Sequence[float],
    rows: int,
    columns: int | None = None,
) -> "Matrix":
    """What a function of the scheme gives for α."""
    shown = " ".join(f"{value:g}" for value in alpha)
    try:
        given = made(tuple(alpha))
    except Exception as error:  # whatever the user's file raises is the user's to read
        raise _refused(file, f"{name} fails at alpha {shown}: {told(error, file)}") from error
    whole = isinstance(given, list | tuple) and all(isinstance(row, list | tuple) for row in given)
    if not whole or not all(_number(value) for row in given for value in row):
        raise _refused(
            file, f"{name} needs to give lists of plain, finite numbers, as in [[1.0, 0.0], "
            "[0.0, 1.0]] (of an array its .tolist()), got "
            f"{shortened(repr(given), 60)} at alpha {shown}"
        )  # fmt: skip
    lengths = [len(row) for row in given]
    wrong = len(given) != rows or len({*lengths}) > 1 or 0 in lengths
    if wrong or (columns is not None and {*lengths} != {columns}):
        if columns is None:
            wants = f"{rows} rows, one an exit, each of one value a teacher"
        else:
            wants = f"{rows} rows, one a teacher (a column of weights), each of {columns} values, "
            wants += "one an exit"
        got = (
            f"{len(given)} rows of {lengths[0]}"
            if len({*lengths}) == 1
            else "rows of " + (", ".join(map(str, lengths)) or "none")
        )
        raise _refused(file, f"{name} needs to give {wants}, got {got}")
    return _plain(given)


def _plain(given: "Sequence[Sequence[float]]") -> "Matrix":
    return [list(row) for row in given]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _refused(file: str, what: str) -> InputError:
    return InputError(f"scheme file {file!r}: {what}")
