"""`automate spaces`, `datasets`, `schemes`, `backbones`: what there is."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from automate import flags
from automate.printing import say, say_json, say_table
from trainers.catalog import BACKBONES, DATASETS, InputError, exits_of
from trainers.schemes import SCHEMES


def spaces(*, json: flags.Json = False) -> None:
    """List the search spaces.

    A Python file of the same form is one too: --space my_space.py.
    """
    from search_spaces import load_space, names

    found = [load_space(name) for name in names()]
    if json:
        listed = [{"name": s.name, "title": s.title, "grid": s.grid is not None} for s in found]
        say_json(listed)
        return
    rows = [(s.name, s.title, "yes" if s.grid else "") for s in found]
    say_table(("space", "what it searches", "grid"), rows)


datasets = App(name="datasets", help_format="plaintext")


@datasets.default
def _list_datasets(*, json: flags.Json = False) -> None:
    """List the data sets, or fetch one.

    A folder with train/<class>/*.png and test/<class>/*.png is one too: --dataset FOLDER.
    """
    if json:
        listed = [
            {
                "name": name,
                "title": entry.title,
                "classes": entry.classes,
                "image_size": entry.image_size,
                "channels": entry.channels,
                "train": entry.train,
                "test": entry.test,
                "get": entry.get,
                "defaults": entry.defaults,
                "trials": entry.trials,
            }
            for name, entry in DATASETS.items()
        ]
        say_json(listed)
        return
    rows = [
        (
            name,
            entry.title,
            str(entry.classes),
            f"{entry.image_size}x{entry.image_size}x{entry.channels}",
            f"{entry.train:,} / {entry.test:,}",
            ", ".join(f"{key} {value}" for key, value in entry.defaults.items()),
        )
        for name, entry in DATASETS.items()
    ]
    say_table(("data set", "what it is", "classes", "pixels", "train / test", "defaults"), rows)
    for name, entry in DATASETS.items():
        say(f"{name}: {entry.get}")


@datasets.command
def fetch(
    name: Annotated[str, Parameter(help="A name from `automate datasets`.")],
    /,
    *,
    data_root: flags.DataRoot = None,
) -> None:
    """Download a data set, unless it is there already."""
    from trainers.sources import fetch as download

    folder = download(name, data_root)
    if folder is None:
        say(f"{name} {DATASETS[name].get}: nothing to fetch")
    else:
        say(f"{name} is in {folder}")


def schemes(*, json: flags.Json = False) -> None:
    """List the teacher schemes.

    Who teaches whom (--scheme), and which settings of exits and teachers a scheme reads.
    """
    if json:
        say_json(
            [
                {
                    "name": name,
                    "title": scheme.title,
                    "learned": scheme.learned,
                    "reads": list(scheme.reads),
                    "multi_exit": scheme.multi_exit,
                }
                for name, scheme in SCHEMES.items()
            ]
        )
        return
    taught = [set(scheme.reads) for scheme in SCHEMES.values() if scheme.teaches]
    always = set.intersection(*taught)
    rows = [
        (name, s.title, ", ".join(field for field in s.reads if field not in always))
        for name, s in SCHEMES.items()
    ]
    say_table(("scheme", "who teaches whom", "reads"), rows)
    also = [field for field in SCHEMES["mate"].reads if field in always - {"exit_weights"}]
    say(f"Whatever teaches also reads {', '.join(also)}; every scheme reads exit_weights.")


def backbones(
    backbone: Annotated[
        str | None, Parameter(help="A name, or a Python file of your own; none: all.")
    ] = None,
    /,
    *,
    dataset: Annotated[
        str | None, Parameter(help="Whose images and classes to count for; none: what fits.")
    ] = None,
    width: Annotated[float, Parameter(help="Multiplies the channels.")] = 1.0,
    json: flags.Json = False,
) -> None:
    """List the backbones and what each exit costs.

    FLOPs are counted per image as in Table 1 of the paper: the backbone up to the exit and its own
    head; a cascade pays the heads before it too.
    """
    from trainers.exits import costs

    listed: list[dict[str, Any]] = []
    for name in [backbone] if backbone else BACKBONES:
        config = _config_for(name, dataset, width)
        listed += [
            {
                "backbone": name,
                "dataset": config.dataset,
                "exit": cost.exit,
                "flops": cost.flops,
                "flops_cascade": cost.flops_cascade,
                "macs": cost.macs,
                "parameters": cost.parameters,
            }
            for cost in costs(config)
        ]
    if json:
        say_json(listed)
        return
    head = ("backbone", "for", "exit", "MFLOPs", "MFLOPs in a cascade", "parameters")
    rows = [
        (
            row["backbone"],
            row["dataset"],
            str(row["exit"]),
            f"{row['flops'] / 1e6:.3f}",
            f"{row['flops_cascade'] / 1e6:.3f}",
            f"{row['parameters']:,}",
        )
        for row in listed
    ]
    say_table(head, rows)


def _config_for(backbone: str, dataset: str | None, width: float) -> Any:
    """A config with this backbone on the named data set, or on the first that it takes."""
    from studies.search import make_config

    exits_of(backbone)  # refuses an unknown name before it is tried on anything
    if dataset is not None:
        return make_config(dataset, backbone=backbone, width=width)
    refused = None
    for name in DATASETS:
        try:
            return make_config(name, backbone=backbone, width=width)
        except InputError as error:
            refused = error
    raise refused or InputError("there is no data set")
