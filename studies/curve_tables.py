"""Tables of learning curves: what every config of a study reached after each epoch, seed by seed.

A study whose trials all ran to their end is one (`studies.recorded`); two come with automate.
Policies of searching are compared on them without training anything (`studies.replay`). A file is a
.npz that is read without pickle:

    header      JSON as bytes: version, space, base config, params of each config, FLOPs, images
    right       uint16 (configs, seeds, epochs, exits): images classified right of `images`;
                65535 from the epoch on in which a run diverged
    seconds     float32 (configs, seeds): of an epoch, the median of its run
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.front import budget_of, objective
from studies.plan import ranked_by
from studies.storage import make_folder
from trainers import catalog
from trainers.catalog import InputError
from trainers.checkpoints import put
from trainers.config import TrialConfig
from trainers.reports import EpochReport, ExitPoint

VERSION = 1
ENDING = ".npz"
DIVERGED = 65_535  # in `right`

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
        """Writes the table; an older file is replaced at once.

        Raises:
            InputError: Another ending than .npz, or a file that cannot be written; an older one is
                kept.
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
        put(path, made.getvalue())
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
    return checked(table)


def checked(table: CurveTable) -> CurveTable:
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
