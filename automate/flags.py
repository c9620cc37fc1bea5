"""The kinds of value that flags take, and the flags that several commands share.

What a value may be is checked in the records; here tokens only become numbers.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token


def whole(type_: Any, tokens: Sequence[Token]) -> int:
    """An integer; `1.5` is refused, not rounded."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number, got {text!r}") from None


def numbers(type_: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    """Several numbers, with spaces or commas between them: `30 5 10 10` or `30,5,10,10`."""
    try:
        return tuple(float(part) for token in tokens for part in token.value.split(","))
    except ValueError:
        given = " ".join(token.value for token in tokens)
        raise ValueError(
            f"expected numbers, as in 30 5 10 10 or 30,5,10,10, got {given!r}"
        ) from None


def wholes(type_: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    """Several integers, as `numbers`: `1 8 64` or `1,8,64`."""
    try:
        return tuple(int(part) for token in tokens for part in token.value.split(","))
    except ValueError:
        given = " ".join(token.value for token in tokens)
        raise ValueError(f"expected whole numbers, as in 1 8 64 or 1,8,64, got {given!r}") from None


def flops(type_: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    """Several numbers of FLOPs, as `numbers`: `100M 1.2G` or `100M,1.2G`."""
    from trainers.dynamic import read_flops

    return tuple(read_flops(part) for token in tokens for part in token.value.split(","))


def budget(type_: Any, tokens: Sequence[Token]) -> float:
    """One number of FLOPs: `150M`."""
    from trainers.dynamic import read_flops

    return read_flops(tokens[0].value)


def span(type_: Any, tokens: Sequence[Token]) -> float:
    """Seconds: `2h`, `1h30m`, `90 min`, `45s`, or a plain number of them."""
    text = " ".join(token.value for token in tokens)
    seconds, at = 0.0, 0
    while at < len(text) or not text:
        part = PART.match(text, at)
        if part is None:
            raise ValueError(f"expected a time, as in 2h, 1h30m or 45s, got {text[:40]!r}")
        number, unit = part.groups()
        if unit not in UNITS:
            known = ", ".join(filter(None, UNITS))
            raise ValueError(f"expected a time in {known}, as 1h30m, got {text[:40]!r}")
        seconds, at = seconds + float(number) * UNITS[unit], part.end()
    if not math.isfinite(seconds):  # hundreds of digits
        raise ValueError(f"expected a time that ends, got {text[:40]!r}")
    return seconds


PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")  # one by one: a repeat would backtrack
UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
Span = Annotated[float | None, Parameter(converter=span, metavar="TIME")]
Whole = Annotated[int, Parameter(converter=whole)]
WholeOrNone = Annotated[int | None, Parameter(converter=whole)]
Numbers = Annotated[
    tuple[float, ...] | None,
    Parameter(converter=numbers, consume_multiple=True, negative_iterable=(), negative_none=()),
]
Wholes = Annotated[
    tuple[int, ...],
    Parameter(converter=wholes, consume_multiple=True, negative_iterable=(), negative_none=()),
]
WholesOrNone = Annotated[
    tuple[int, ...] | None,
    Parameter(converter=wholes, consume_multiple=True, negative_iterable=(), negative_none=()),
]
Flops = Annotated[
    tuple[float, ...] | None,
    Parameter(
        converter=flops,
        metavar="FLOPS...",
        consume_multiple=True,
        negative_iterable=(),
        negative_none=(),
    ),
]
Resize = Annotated[
    int | None,
    Parameter(
        converter=whole, help="Squares of N pixels of the images of --dataset, class folders."
    ),
]
Budget = Annotated[float | None, Parameter(converter=budget, metavar="FLOPS")]
Switch = Annotated[bool, Parameter(negative=(), show_default=False)]
Json = Annotated[Switch, Parameter(help="Print JSON on stdout, and everything else on stderr.")]
Quiet = Annotated[Switch, Parameter(help="Print the result alone, no plan and no progress.")]
StudyName = Annotated[str | None, Parameter(help="A study's name; none: the latest.")]
Storage = Annotated[
    str | None,
    Parameter(
        help="An Optuna URL, e.g. sqlite:///FILE (else $AUTOMATE_STORAGE, where a password is "
        "safe; else runs/<study>/study.db)."
    ),
]
Runs = Annotated[Path, Parameter(name="--runs-dir", help="Folder of the studies.")]
DataRoot = Annotated[
    str | None, Parameter(help="Where the data set lies (else $AUTOMATE_DATA, else ./data).")
]


@Parameter(name="*")
@dataclass(frozen=True)
class Running:
    """What `search`, `confirm`, `calibrate` and `reproduce` take alike: what runs a study, where,
    how long."""

    workers: Annotated[
        WholeOrNone,
        Parameter(
            help="Trials at a time [default: 4 on one GPU, one each on several; on a CPU one a "
            "core where all take over 2 min, else 1]."
        ),
    ] = None
    threads: Annotated[
        WholeOrNone,
        Parameter(
            alias="--cpus-per-trial",
            help="CPU threads of a trial [default: the faster of 1 and all].",
        ),
    ] = None
    gpus_per_trial: Annotated[
        float | None,
        Parameter(help="Share of a GPU, e.g. 0.25 [default: 1 / workers on one, else 1]."),
    ] = None
    device: Annotated[
        str | None, Parameter(help="cpu or cuda [default: cuda where there is one].")
    ] = None
    ray_address: Annotated[
        str | None,
        Parameter(
            help="A Ray cluster to run on, e.g. 10.0.0.5:6379; what is not given is then chosen "
            "for its nodes."
        ),
    ] = None
    timeout: Annotated[
        Span,
        Parameter(help="Begin no epoch after this time, e.g. 2h or 1h30m; what is cut waits."),
    ] = None
    max_epochs_total: Annotated[
        WholeOrNone,
        Parameter(help="Epochs of the whole study, never exceeded; what is cut waits."),
    ] = None
    data_root: DataRoot = None
    storage: Storage = None
    runs: Runs = Path("runs")
    fresh: Annotated[Switch, Parameter(help="Delete the study and start over.")] = False
    dry_run: Annotated[Switch, Parameter(help="Print the plan and end; nothing is made.")] = False
    json: Json = False
    quiet: Quiet = False

    @property
    def machine(self) -> dict[str, Any]:
        """What runs it, as given: what every plan is made with."""
        return {
            "workers": self.workers,
            "threads": self.threads,
            "gpus_per_trial": self.gpus_per_trial,
            "device": self.device,
            "ray_address": self.ray_address,
        }

    def explicit(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What a study that goes on takes over: it keeps what runs it, unless it is said here."""
        from studies.resume import RUNTIME  # and Optuna with it

        given = {**self.machine, "precision": settings.get("precision")}
        return {name: given[name] for name in RUNTIME if given[name] is not None}

    def tail(self, *studies: str) -> list[object]:
        """The words after another command's name that mean the same studies."""
        words: list[object] = [*studies]
        words += ["--runs-dir", self.runs] if self.runs != Path("runs") else []
        return words + (["--storage", self.storage] if self.storage else [])


USUAL = Running()  # nothing given
