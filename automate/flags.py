"""Flags: one for each field of `TrialConfig`, and the kinds of value that several commands take.

A hyper-parameter is declared in `trainers.config` alone: its name, type, default and description
there are the flag's. What a value may be is checked there too, so here tokens only become numbers.
"""

from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from cyclopts import Group, Parameter, Token
from pydantic.fields import FieldInfo
from typing_extensions import TypedDict

from trainers.catalog import DATASETS
from trainers.config import TrialConfig

# What a user never says: these come with the data set or with the program.
NO_FLAGS = {"schema_version", "classes", "image_size"}
SETTINGS = Group("Training settings (those that the space searches are a base value here)")


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


Whole = Annotated[int, Parameter(converter=whole)]
WholeOrNone = Annotated[int | None, Parameter(converter=whole)]
Numbers = Annotated[
    tuple[float, ...] | None,
    Parameter(converter=numbers, consume_multiple=True, negative_iterable=(), negative_none=()),
]
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


def _members(annotation: Any) -> tuple[Any, ...]:
    union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if union else (annotation,)


def _help(name: str, field: FieldInfo) -> str:
    """The description, and the default: the data set's where it brings one."""
    text = field.description or ""
    brought = {
        dataset: entry.defaults[name]
        for dataset, entry in DATASETS.items()
        if name in entry.defaults
    }
    default = field.default
    if isinstance(default, tuple):
        default = " ".join(f"{value:g}" for value in default)
    if brought:
        listed = [f"{value} for {dataset}" for dataset, value in brought.items()]
        others = [] if len(brought) == len(DATASETS) else [f"else {default}"]
        return f"{text} [default: {', '.join(listed + others)}]"
    return text if default is None else f"{text} [default: {default}]"


def _flag(name: str, field: FieldInfo) -> Any:
    """The field's type and how to read it, as cyclopts takes it."""
    members = _members(field.annotation)
    options: dict[str, Any] = {}
    if any(get_origin(member) is tuple for member in members):
        options = {"converter": numbers, "consume_multiple": True, "negative_iterable": ()}
    elif int in members:
        options = {"converter": whole}
    made = Parameter(
        help=_help(name, field), show_default=False, group=SETTINGS, negative_none=(), **options
    )
    return Annotated[field.annotation, made]


if TYPE_CHECKING:
    ConfigFlags = dict[str, Any]
else:
    # total=False: what was not given is not in the mapping, so that the data set's defaults hold
    ConfigFlags = TypedDict(
        "ConfigFlags",
        {
            name: _flag(name, field)
            for name, field in TrialConfig.model_fields.items()
            if name not in NO_FLAGS
        },
        total=False,
    )

Config = Annotated[ConfigFlags | None, Parameter(name="*")]
