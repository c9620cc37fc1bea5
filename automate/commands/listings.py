"""`automate spaces`, `datasets`, `schemes`, `backbones`: what there is."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from automate import flags
from automate.printing import duration, say, say_json, say_table, size
from trainers.catalog import BACKBONES, DATASETS, InputError
from trainers.own import exits_of
from trainers.schemes import SCHEMES

if TYPE_CHECKING:
    from trainers.config import TrialConfig

TELL_EVERY = 5.0  # seconds between two lines about a download


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

    A folder with train/<class>/*.jpg and test/<class>/*.jpg (or .png, ...) is one too: --dataset
    FOLDER.
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
                "download": entry.download,
                "decoded": entry.decoded,
                "note": entry.note,
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
            size(entry.decoded),
            ", ".join(f"{key} {value}" for key, value in entry.defaults.items()),
        )
        for name, entry in DATASETS.items()
    ]
    say_table(
        ("data set", "what it is", "classes", "pixels", "train / test", "decoded", "defaults"), rows
    )
    for name, entry in DATASETS.items():
        say(f"{name}: {entry.get}")


@datasets.command
def fetch(
    name: Annotated[str, Parameter(help="A name from `automate datasets`.")],
    /,
    *,
    mirror: Annotated[
        str | None, Parameter(help="The URL of another folder with the same files.")
    ] = None,
    data_root: flags.DataRoot = None,
) -> None:
    """Download a data set, unless it is there already.

    Called again, it goes on where it was cut. What comes is checked against the published digest.
    """
    from trainers.fetching import Progress
    from trainers.fetching import fetch as download

    told = time.monotonic()

    def tell(progress: Progress) -> None:
        """A line every few seconds."""
        nonlocal told
        if time.monotonic() - told < TELL_EVERY:
            return
        told = time.monotonic()
        share = f"{100 * progress.done / progress.total:.0f} % of {size(progress.total)}"
        left = (progress.total - progress.done) / progress.rate if progress.rate else 0
        text = f"{progress.name}: {share}, {size(progress.rate)}/s, {duration(left)} left"
        say(text, stderr=True)

    folder = download(
        name,
        data_root,
        mirror,
        on_note=lambda text: say(text, stderr=True),
        on_progress=tell,
    )
    if folder is None:
        say(f"{name} {DATASETS[name].get}: nothing to fetch")
    else:
        say(f"{name} is in {folder}")


def schemes(
    scheme: Annotated[
        str | None, Parameter(help="A name, or a Python file of your own; none: all.")
    ] = None,
    /,
    *,
    backbone: Annotated[str, Parameter(help="Whose exits one scheme is shown for.")] = "vgg16",
    alpha: Annotated[
        tuple[float, ...], Parameter(consume_multiple=True, help="One value or one per exit.")
    ] = (3.0,),
    json: flags.Json = False,
) -> None:
    """List the teacher schemes, or show one.

    Who teaches whom (--scheme), and which settings of exits and teachers a scheme reads. Of one it
    shows how the exits compose its teachers, and how much each exit learns from each teacher. A
    file of your own is checked.
    """
    if scheme is not None:
        config = configs_for(backbone, None, 1.0, None)[0].with_(scheme=scheme, alpha=alpha)
        from automate.scheme_text import say_scheme, scheme_json

        say_json(scheme_json(config)) if json else say_scheme(config)
        return
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
        str | None,
        Parameter(help="Whose images and classes to count for; none: what fits (a file: digits)."),
    ] = None,
    width: Annotated[float, Parameter(help="Multiplies the channels.")] = 1.0,
    resize: flags.Resize = None,
    json: flags.Json = False,
) -> None:
    """List the backbones and what each exit costs.

    FLOPs are counted per image as in Table 1 of the paper: the backbone up to the exit and its own
    head; a cascade pays the heads before it too. MACs are of convolutions and linear layers alone.
    Each backbone is listed at every size of images that it takes.
    """
    from trainers.costs import costs

    configs = [
        config
        for name in ([backbone] if backbone else BACKBONES)
        for config in configs_for(name, dataset, width, resize)
    ]
    if json:
        say_json(
            [
                {
                    "backbone": config.backbone,
                    "dataset": config.dataset,
                    "image_size": config.image_size,
                    **asdict(cost),
                }
                for config in configs
                for cost in costs(config)
            ]
        )
        return
    rows = [
        (
            config.backbone,
            config.dataset,
            f"{config.image_size}x{config.image_size}",
            str(cost.exit),
            f"{cost.flops / 1e6:.3f}",
            f"{cost.flops_cascade / 1e6:.3f}",
            f"{cost.macs / 1e6:.3f}",
            f"{cost.parameters:,}",
        )
        for config in configs
        for cost in costs(config)
    ]
    head = ("backbone", "for", "pixels", "exit", "MFLOPs", "cascade MFLOPs", "MMACs", "parameters")
    say_table(head, rows)


def configs_for(
    backbone: str, dataset: str | None, width: float, resize: int | None
) -> "list[TrialConfig]":
    """Configs with this backbone: on the named data set, or on one of each size that it takes.

    A user's file does not say what it takes: it is put on the first data set. `resize` is of a
    data set that is a folder.

    Raises:
        InputError: An unknown backbone or data set, or two that do not fit.
    """
    from studies.search import make_config

    exits_of(backbone)  # refuses an unknown name before it is tried on anything
    if dataset is not None:
        names = [dataset]
    elif backbone in BACKBONES:
        of_size = {entry.image_size: name for name, entry in reversed(DATASETS.items())}
        sizes = BACKBONES[backbone].image_sizes
        names = [of_size[pixels] for pixels in sizes if pixels in of_size]
    else:
        names = list(DATASETS)[:1]
    if resize is not None and dataset is None:
        raise InputError("--resize is of class folders of your own: name them by --dataset")
    return [make_config(name, backbone=backbone, width=width, resize=resize) for name in names]
