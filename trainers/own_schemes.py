"""A user's own teacher scheme: whether its matrices are some, at the α and the exits of a config.

Torch-free, as `trainers.schemes` is, which reads the file.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from trainers.catalog import InputError, shortened, unknown
from trainers.own import told

if TYPE_CHECKING:
    from trainers.schemes import Matrix, Scheme

MIXES = {  # the weight networks that come along, and how many teachers each composes
    "attention": "one an exit",
    "gates": "one an exit",
    "peers": "one an exit",
    "gate": "one",
}
CLOSE = 1e-6  # of a sum of rounded shares to one


def check(
    file: str, scheme: "Scheme", alpha: Sequence[float], alpha_teacher: Sequence[float]
) -> None:
    """Whether the loss can be computed from a scheme.

    Args:
        file: Of the user.
        scheme: As the file has it.
        alpha: α, M values.
        alpha_teacher: α' of the teachers, M values.

    Raises:
        InputError: A function of it fails, or gives no matrix of the right shape; a mix whose rows
            do not sum to one; a negative weight; an unknown weight network, or one that composes
            another number of teachers; teachers that nothing trains; or matrices that change with
            an α that the scheme does not say it reads.
    """
    _check_alpha(file, scheme, len(alpha))
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
    if scheme.learned:
        _check_network(file, scheme, v)
    else:
        _check_mix(file, "mix", scheme.mix, alpha_teacher, teachers)
    if scheme.best is not None:
        _check_mix(file, "best", scheme.best, alpha_teacher, teachers)


def _check_network(file: str, scheme: "Scheme", v: "Matrix") -> None:
    """A weight network: one there is, of as many teachers as W has, each learning from an exit."""
    exits, teachers = len(v), len(v[0])
    if isinstance(scheme.mix, str):
        if scheme.mix not in MIXES:
            known = unknown("weight network", scheme.mix, MIXES, "or a torch.nn.Module of your own")
            raise _refused(file, str(known))
        if teachers != (1 if scheme.mix == "gate" else exits):
            raise _refused(
                file, f"weights has {teachers} columns, one a teacher, but {scheme.mix!r} composes "
                f"{MIXES[scheme.mix]}, here {1 if scheme.mix == 'gate' else exits}"
            )  # fmt: skip
    if scheme.best is None and any(sum(column) == 0 for column in zip(*v, strict=True)):
        raise _refused(
            file, "a teacher learns from no exit (a column of zeros in its weights), so nothing "
            "trains its mix: give teacher_weights, or a fixed mix"
        )  # fmt: skip


def _check_mix(
    file: str,
    name: str,
    made: "Callable[[Sequence[float]], Matrix] | str",
    alpha: Sequence[float],
    teachers: int,
) -> None:
    assert callable(made)
    mix = _matrix(file, name, made, alpha, rows=teachers, columns=len(alpha))
    for number, row in enumerate(mix, 1):
        if abs(sum(row) - 1) > CLOSE:
            raise _refused(
                file, f"{name}: row {number} sums to {sum(row):g}, expected 1: how the exits "
                "compose that teacher"
            )  # fmt: skip


def _matrix(
    file: str,
    name: str,
    made: "Callable[[Sequence[float]], Matrix]",
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
    numbers = whole and all(
        isinstance(value, int | float) and math.isfinite(value) for row in given for value in row
    )
    if not numbers:
        raise _refused(
            file, f"{name} needs to give lists of plain, finite numbers, as in [[1.0, 0.0], "
            "[0.0, 1.0]] (of an array its .tolist()), got "
            f"{shortened(repr(given), 60)} at alpha {shown}"
        )  # fmt: skip
    lengths = {len(row) for row in given}
    if len(given) != rows or len(lengths) > 1 or (columns is not None and lengths - {columns}):
        of = "a teacher" if name in ("mix", "best") else "an exit"
        each = f" of {columns} values" if columns is not None else " of one value a teacher"
        raise _refused(
            file, f"{name} needs to give {rows} rows, one {of}, each{each}, got rows of "
            f"{', '.join(str(len(row)) for row in given) or 'none'}"
        )  # fmt: skip
    return [list(row) for row in given]


@lru_cache(maxsize=64)
def _check_alpha(file: str, scheme: "Scheme", exits: int) -> None:
    if scheme.alpha:
        return
    functions = {"weights": scheme.weights, "teacher_weights": scheme.teacher_weights}
    if not scheme.learned:
        assert callable(scheme.mix)
        functions["mix"] = scheme.mix
    for name, made in functions.items():
        if made is None:
            continue
        rows = exits if name != "mix" else len(scheme.weights((1.0,) * exits)[0])
        low, high = (_matrix(file, name, made, (at,) * exits, rows=rows) for at in (1.0, 2.0))
        if low != high:
            raise _refused(file, f"{name} changes with alpha: say so, Scheme(..., alpha=True)")


def _refused(file: str, what: str) -> InputError:
    return InputError(f"scheme file {file!r}: {what}")
