"""A flag for each field of `TrialConfig`.

A hyper-parameter is declared in `trainers.config` alone: its name, type, default and description
there are the flag's. Apart from `flags`, because only `search` needs the record for its help.
"""

from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, Union, get_args, get_origin

from cyclopts import Group, Parameter
from pydantic.fields import FieldInfo

from automate.flags import numbers, whole
from trainers.catalog import DATASETS
from trainers.config import TrialConfig

# What a user never says: these come with the data set or with the program.
NO_FLAGS = {"schema_version", "classes", "image_size"}
SETTINGS = Group("Training settings (those that the space searches are a base value here)")


def _members(annotation: Any) -> tuple[Any, ...]:
    union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if union else (annotation,)


def _help(name: str, field: FieldInfo) -> str:
    """The description, and the default: the data set's where it brings one."""
    text = field.description or ""
    brought: dict[object, list[str]] = {}
    for dataset, entry in DATASETS.items():
        if name in entry.defaults:
            brought.setdefault(entry.defaults[name], []).append(dataset)
    default = field.default
    if isinstance(default, tuple):
        default = " ".join(f"{value:g}" for value in default)
    if brought:
        listed = [f"{value} for {' and '.join(names)}" for value, names in brought.items()]
        # Data sets of the user's own, a folder each, bring no settings.
        others = [f"else {'the first that takes the size' if name == 'backbone' else default}"]
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


def _flags(name: str, without: frozenset[str]) -> Any:
    # total=False: what was not given is not in the mapping, so that the data set's defaults hold
    fields = TrialConfig.model_fields.items()
    made = {field: _flag(field, info) for field, info in fields if field not in without}
    return TypedDict(name, made, total=False)  # type: ignore[operator]


# What an experiment of the paper settles itself, or takes several of.
SETTLED = {"dataset", "backbone", "scheme"}

if TYPE_CHECKING:
    ConfigFlags = dict[str, Any]
    ExperimentFlags = dict[str, Any]
else:
    ConfigFlags = _flags("ConfigFlags", frozenset(NO_FLAGS))
    ExperimentFlags = _flags("ExperimentFlags", frozenset(NO_FLAGS | SETTLED))

Config = Annotated[ConfigFlags | None, Parameter(name="*")]
ExperimentConfig = Annotated[ExperimentFlags | None, Parameter(name="*")]
