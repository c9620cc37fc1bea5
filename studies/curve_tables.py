"""Tables of learning curves: what every config of a study reached after each epoch, seed by seed.

A study whose trials all ran to their end is one; two recorded ones come with automate. Policies of
searching are compared on them without training anything (`studies.replay`). A file is a .npz that
is read without pickle:

    header      JSON as bytes: version, space, base config, params of each config, FLOPs, images
    right       uint16 (configs, seeds, epochs, exits): images classified right of `images`;
                65535 from the epoch on in which a run diverged
    seconds     float32 (configs, seeds): of an epoch, the median of its run
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from studies.front import budget_of, objective
from studies.plan import ranked_by
from studies.storage import make_folder
from trainers import catalog
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.reports import EpochReport, ExitPoint

if TYPE_CHECKING:
    from studies.reading import StudyReader

VERSION = 1
ENDING = ".npz"
DIVERGED = 65_535  # in `right`
ROUNDED = 6e-7  # what an accuracy of six decimals may be off
MOST_IMAGES = 60_000  # that a count of right ones is looked for with

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CurveTable:
    """Learning curves of configs C over seeds S, epochs E and exits M.

    Attributes:
        name: Of the study, or of the file.
        space: That the configs are points of.
        base: What they have in common; its epochs are E.
        params: (C,), parameters of each config, as the space names them.
        accuracy: (C, S, E, M), top-1, fraction; NaN from the epoch on in which a run diverged.
        seconds: (C, S), of an epoch.
        flops, flops_cascade: (M,), per image, see `ExitPoint`.
        images: That each accuracy was scored on.
    """

    name: str
    space: str
    base: TrialConfig
    params: tuple[Mapping[str, Any], ...]
    accuracy: Array
    seconds: Array
    flops: tuple[int, ...]
    flops_cascade: tuple[int, ...]
    images: int
    _reports: dict[tuple[int, int], tuple[EpochReport, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def configs(self) -> int:
        """C."""
        return int(self.accuracy.shape[0])

    @property
    def seeds(self) -> int:
        """S."""
        return int(self.accuracy.shape[1])

    @property
    def epochs(self) -> int:
        """E."""
        return int(self.accuracy.shape[2])

    def reports(self, config: int, seed: int) -> tuple[EpochReport, ...]:
        """What a run said, epoch by epoch; the last report of one that diverged has no loss.

        Args:
            config, seed: Places in the table, from 0.
        """
        known = self._reports.get((config, seed))
        if known is None:
            known = self._reports[config, seed] = tuple(self._said(config, seed))
        return known

    def _said(self, config: int, seed: int) -> Iterable[EpochReport]:
        seconds = float(self.seconds[config, seed])
        for epoch, row in enumerate(self.accuracy[config, seed], 1):
            gone = bool(np.isnan(row).any())
            exits = () if gone else self._points(row)
            yield EpochReport(
                epoch=epoch,
                loss=None if gone else 0.0,
                seconds=seconds,
                split="validation",
                exits=exits,
            )
            if gone:
                return

    def _points(self, row: Array) -> tuple[ExitPoint, ...]:
        columns = zip(self.flops, self.flops_cascade, row.tolist(), strict=True)
        return tuple(
            ExitPoint(exit=i, flops=flops, flops_cascade=cascade, accuracy=accuracy, top5=1.0)
            for i, (flops, cascade, accuracy) in enumerate(columns, 1)
        )

    def values(self, name: str, budgets: Sequence[float] | None = None) -> Array:
        """(C, S), an objective after the last epoch; chance of a run that diverged.

        Of a front, which is several objectives, the anytime accuracy that orders its trials.

        Raises:
            InputError: An objective that a table does not have the figures for.
        """
        name = ranked_by(name)
        if budget_of(name) is not None or name == "hypervolume":
            raise InputError(
                f"objective {name} cannot be replayed: a table holds the accuracy of each exit, "
                "no budget curve and no networks of different cost; take anytime, mean, last, "
                "exit:K or front"
            )
        found = np.full((self.configs, self.seeds), 1.0 / self.base.classes)
        for config, seed in np.ndindex(*found.shape):
            row = self.accuracy[config, seed, -1]
            if not np.isnan(row).any():
                found[config, seed] = objective(name, self._points(row), budgets)
        return found

    def spreads(self, name: str, budgets: Sequence[float] | None = None) -> tuple[float, float]:
        """How an objective scatters after the last epoch: of one run about its config, and of the
        configs about each other; fractions.

        What a seed does to all configs is taken out, and what the runs' scatter brings into the
        configs' means. NaN with one seed. Raises InputError as `values` does.
        """
        values = self.values(name, budgets)
        if self.seeds < 2 or self.configs < 2:
            return float("nan"), float("nan")
        means = values.mean(axis=1)
        rest = values - means[:, None] - values.mean(axis=0) + values.mean()
        run = float((rest**2).sum() / ((self.configs - 1) * (self.seeds - 1)))
        between = max(0.0, float(means.var(ddof=1)) - run / self.seeds)
        return run**0.5, between**0.5

    def write(self, path: str | Path) -> Path:
        """Writes the table; an older file is replaced.

        Raises:
            InputError: Another ending than .npz, or a file that cannot be written.
        """
        path = Path(path)
        if path.suffix != ENDING:
            raise InputError(f"a table's file needs to end in {ENDING}, got {path.name}")
        header = {
            "version": VERSION,
            "space": self.space,
            "base": self.base.model_dump(mode="json"),
            "params": [dict(params) for params in self.params],
            "flops": list(self.flops),
            "flops_cascade": list(self.flops_cascade),
            "images": self.images,
        }
        counts = np.nan_to_num(np.round(self.accuracy * self.images), nan=DIVERGED)
        made = io.BytesIO()
        np.savez_compressed(
            made,
            allow_pickle=False,
            header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
            right=counts.astype(np.uint16),
            seconds=self.seconds.astype(np.float32),
        )
        make_folder(path.parent)
        try:
            path.write_bytes(made.getvalue())
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
        return path


def shipped() -> list[str]:
    """The names of the tables that come with automate."""
    folder = resources.files("studies").joinpath("tables")
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(ENDING) for name in names if name.endswith(ENDING))


def read_table(name: str) -> CurveTable:
    """A table that comes with automate, by its name, or a .npz file by its path.

    Raises:
        InputError: No such table, or a file that is none.
    """
    if name in shipped():
        raw = resources.files("studies").joinpath("tables", name + ENDING).read_bytes()
    elif not name.endswith(ENDING):
        raise catalog.unknown("table", name, shipped(), f"or a path to a {ENDING} file")
    else:
        try:
            raw = Path(name).read_bytes()
        except OSError as error:
            raise InputError(f"table {name} cannot be read: {error.strerror}") from None
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            header = json.loads(bytes(arrays["header"]))
            right, seconds = arrays["right"], arrays["seconds"].astype(np.float64)
        if header["version"] != VERSION:
            raise InputError(
                f"table {name} is of version {header['version']}, this automate reads {VERSION}"
            )
        images = int(header["images"])
        table = CurveTable(
            name=Path(name).name.removesuffix(ENDING),
            space=str(header["space"]),
            base=TrialConfig.read(header["base"]),
            params=tuple(header["params"]),
            accuracy=np.where(right == DIVERGED, np.nan, right / images),
            seconds=seconds,
            flops=tuple(header["flops"]),
            flops_cascade=tuple(header["flops_cascade"]),
            images=images,
        )
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        # numpy's own word on a stranger's file is to load it unsafely
        why = "" if type(error) is ValueError else f": {error}"
        raise InputError(f"{name} is no table of learning curves{why}") from None
    return _checked(table)


def _checked(table: CurveTable) -> CurveTable:
    """The table, if its parts fit each other. Raises InputError."""
    shape = (len(table.params), table.seeds, table.base.epochs, table.base.exits)
    good = (
        table.accuracy.shape == shape
        and table.seconds.shape == shape[:2]
        and len(table.flops) == len(table.flops_cascade) == shape[3]
        and min(shape) > 0
        and not (table.accuracy > 1).any()
        and bool((table.seconds >= 0).all())
    )
    if not good:
        raise InputError(
            f"table {table.name} does not fit its header: accuracies {table.accuracy.shape}, "
            f"expected {shape} (configs, seeds, epochs, exits), all from 0 to 1"
        )
    return table


def table_of(record: StudyReader) -> CurveTable:
    """The table of a study whose trials ran to their end.

    Trials that differ in nothing but their seed are one config's runs; of each config as many seeds
    are taken as the one with the fewest has. A calibration is such a study of the space that it
    calibrates.

    Raises:
        InputError: Trials that were stopped early or have not ended, or networks that differ in
            cost.
    """
    plan, name = record.plan, record.name
    if plan.experiment is not None:
        raise InputError(
            f"study {name!r} is an experiment of the paper, scored on the test split: a table is "
            "made of a search"
        )
    outcomes = [o for o in record.outcomes() if o.state != "FAIL"]
    stopped = sum(o.state == "PRUNED" and not o.diverged for o in outcomes)
    left = sum(o.state in ("WAITING", "RUNNING") for o in outcomes)
    if stopped:
        raise InputError(
            f"study {name!r} is no table of whole learning curves: {stopped} of its "
            f"{len(outcomes)} trials were stopped early; search once more with --no-early-stopping "
            "--study NAME, and replay that study"
        )
    if left:
        raise InputError(
            f"study {name!r} is no table yet: {left} of its {len(outcomes)} trials have not ended; "
            "the same search command goes on"
        )
    added = {"seed"} if plan.calibrates else set()  # to the space's own parameters
    runs: list[dict[str, Any]] = []
    flops: set[tuple[tuple[int, int], ...]] = set()
    for outcome in outcomes:
        if outcome.config is None:
            continue
        reports = [r for r in record.reports(outcome.number) if r.exits or r.diverged]
        flops |= {tuple((p.flops, p.flops_cascade) for p in r.exits) for r in reports if r.exits}
        runs.append(
            {
                "config": outcome.config,
                "params": {k: x for k, x in outcome.params.items() if k not in added},
                "seed": outcome.config.seed,
                "seconds": [r.seconds for r in reports],
                "accuracy": [list(r.accuracies) for r in reports if not r.diverged],
            }
        )
    if not runs:
        raise InputError(f"study {name!r} has no trial that ran: nothing to replay")
    if len(flops) != 1:
        raise InputError(
            f"study {name!r} has networks that differ in what their exits cost: a table needs one "
            "network"
        )
    space = plan.calibrates or plan.space
    return made_of_runs(name, space, plan.base, runs, next(iter(flops)))


def read_runs(path: str | Path) -> list[dict[str, Any]]:
    """Runs as they were recorded: JSON lines, also gzipped, each with the keys config, params, seed
    (of the run), seconds ([an epoch]) and accuracy ([an epoch][an exit]).

    Raises:
        InputError: A file that cannot be read, or a line that is no run; its number is named.
    """
    path, runs, number = Path(path), [], 0
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                run = json.loads(line)
                missing = {"config", "params", "seed", "seconds", "accuracy"} - set(run)
                if missing:
                    raise InputError(f"{path}, line {number}: {', '.join(sorted(missing))} missing")
                runs.append({**run, "config": TrialConfig.read(run["config"])})
    except InputError:
        raise
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise InputError(f"{path}, after line {number}: {error}") from None
    if not runs:
        raise InputError(f"{path} holds no run")
    return runs


def made_of_runs(
    name: str,
    space: str,
    base: TrialConfig,
    runs: Sequence[Mapping[str, Any]],
    flops: Sequence[tuple[int, int]] | None = None,
) -> CurveTable:
    """A table of recorded runs.

    Args:
        name: Of the table.
        space: That `params` are points of.
        base: What all configs have in common; where a data set lies is left out of it.
        runs: See `read_runs`. A run of fewer epochs than the base's diverged after them.
        flops: (FLOPs, FLOPs with earlier heads) of each exit; counted if not given, which needs
            torch.

    Raises:
        InputError: Runs of different lengths or exits.
    """
    points: dict[str, int] = {}
    by_config: list[dict[int, Mapping[str, Any]]] = []
    for run in runs:
        key = json.dumps(run["params"], sort_keys=True)
        if key not in points:
            points[key] = len(by_config)
            by_config.append({})
        by_config[points[key]].setdefault(int(run["seed"]), run)
    seeds = min(map(len, by_config))
    accuracy = np.full((len(by_config), seeds, base.epochs, base.exits), np.nan)
    seconds = np.zeros(accuracy.shape[:2])
    for config, found in enumerate(by_config):
        for place, seed in enumerate(sorted(found)[:seeds]):
            run = found[seed]
            curve = np.asarray(run["accuracy"], dtype=np.float64).reshape(-1, base.exits)
            if len(curve) > base.epochs:
                raise InputError(
                    f"table {name}: a run of {len(curve)} epochs, expected {base.epochs} at most"
                )
            accuracy[config, place, : len(curve)] = curve
            seconds[config, place] = float(np.median(run["seconds"] or [0.0]))
    if flops is None:
        from trainers.costs import costs  # torch

        flops = [(cost.flops, cost.flops_cascade) for cost in costs(base)]
    images = images_of(accuracy)
    if images <= MOST_IMAGES:
        accuracy = np.round(accuracy * images) / images
    if catalog.is_path(base.dataset):
        base = base.with_(dataset=f"./{Path(base.dataset).name}")
    return _checked(
        CurveTable(
            name=name,
            space=space,
            base=base,
            params=tuple(json.loads(key) for key in points),
            accuracy=accuracy,
            seconds=seconds,
            flops=tuple(first for first, _ in flops),
            flops_cascade=tuple(second for _, second in flops),
            images=images,
        )
    )


def images_of(accuracy: Array) -> int:
    """The least number of images of which every accuracy is a whole number, but for rounding to six
    decimals; the most that a file can count where there is none below."""
    fractions = np.unique(accuracy[~np.isnan(accuracy)])
    some = fractions[:: max(1, len(fractions) // 20)]
    for images in range(1, MOST_IMAGES + 1):
        if all(
            np.abs(tried * images - np.round(tried * images)).max(initial=0.0) <= ROUNDED * images
            for tried in (some, fractions)
        ):
            return images
    return DIVERGED - 1
