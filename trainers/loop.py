"""Training as a generator: one EpochReport per epoch. Stopping early is not asking for more."""

import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainers import checkpoints, memory
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.data import Data, Images, load
from trainers.reports import EpochReport
from trainers.run import Run


def train(
    config: TrialConfig,
    data: Data | None = None,
    *,
    checkpoint: Path | None = None,
    device: str = "cpu",
    each_epoch: bool = False,
    hits: bool = False,
) -> Iterator[EpochReport]:
    """One run, an epoch at a time.

    Args:
        config: Everything that decides the run.
        data: Images to train and to score on; the config's training images and hold-out if None.
            A test split is scored once, after the last epoch; earlier reports carry no exits.
        checkpoint: Written after each epoch, before its report is given. If the file is there, the
            run goes on from it (on CPU bit for bit) and its reports so far come first. One that is
            damaged is left for the one before it, and if that is damaged too the run starts over;
            a warning says so.
        device: "cpu" or "cuda".
        each_epoch: Score a test split after every epoch: for the paper's curves, never to select.
        hits: The last report says which held-out images each exit has right; its checkpoint too.

    Yields:
        A report per completed epoch. A loss that is not finite ends the run with a report whose
        `diverged` is true.

    Raises:
        InputError: Data that is missing or does not fit the config; a checkpoint of another run, or
            one that cannot be read though it may be whole.
    """
    memory.begin(device)
    data = load(config) if data is None else data
    held = _rows(data.score) if hits and data.split == "validation" else None
    data = data.to(device)
    with _opened(config, data, device) as run:
        reports: list[EpochReport] = []
        if checkpoint is not None:
            reports = _resumed(run, checkpoint)
            yield from reports
        for epoch in range(len(reports), config.epochs):
            begin = time.perf_counter()
            mean_loss = run.train_epoch(data.fit, epoch)
            finite = math.isfinite(mean_loss)
            scored: dict[str, Any] = {"exits": ()}
            last = epoch + 1 == config.epochs
            if finite and (last or each_epoch or data.split == "validation"):
                held_out = data.split == "validation"
                scored = run.score(
                    data.score,
                    epoch,
                    calibrate=data.calibrate,
                    cross_fit=held_out,
                    rows=held if last else None,
                )
            report = EpochReport(
                epoch=epoch + 1,
                loss=mean_loss if finite else None,
                seconds=time.perf_counter() - begin,
                split=data.split,
                temperature=run.temperature(epoch) if finite else None,
                path=run.path,
                memory=memory.peak(device),
                **scored,
            )
            reports.append(report)
            if checkpoint is not None and finite:
                run.save(checkpoint, reports)
            yield report
            if not finite:
                return


def rescored(config: TrialConfig, data: Data, checkpoint: Path, device: str = "cpu") -> EpochReport:
    """What a finished run's network reaches on other images: `data.score`.

    Args:
        config: Of the run.
        data: Whose `calibrate` images set the thresholds of dynamic inference, if there are any.
        checkpoint: Of the run's last epoch.
        device: "cpu" or "cuda".

    Raises:
        InputError: A checkpoint that is damaged, of another run, or of an earlier epoch.
    """
    data, run = data.to(device), Run(config, device)
    last = run.restore(checkpoint)[-1]
    if last.epoch < config.epochs:
        raise InputError(f"{checkpoint} is of epoch {last.epoch}, not of the last, {config.epochs}")
    begin = time.perf_counter()
    scored = run.score(data.score, config.epochs - 1, calibrate=data.calibrate)
    return EpochReport(
        epoch=last.epoch,
        loss=last.loss,
        seconds=time.perf_counter() - begin,
        split=data.split,
        temperature=last.temperature,
        **scored,
    )


def _rows(images: Images) -> NDArray[np.int64]:
    """(n,) which of the stored images they are."""
    rows = torch.arange(len(images)) if images.rows is None else images.rows
    return np.asarray(rows.cpu().numpy(), dtype=np.int64)


def _opened(config: TrialConfig, data: Data, device: str) -> AbstractContextManager[Run]:
    """A run for this device: on a CPU step by step, on a GPU as CUDA graphs."""
    if torch.device(device).type == "cpu":
        return nullcontext(Run(config, device))
    from trainers.opening import opened  # what a CPU never needs

    return opened(config, data, device)


def _resumed(run: Run, checkpoint: Path) -> list[EpochReport]:
    """Takes the run to its newest readable checkpoint, if any; gives the reports up to there.

    Raises:
        OtherRunError: Only checkpoints of another run are there.
        InputError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError: As `Run.restore`
            raises them: where the disk or the memory fails, what is there may be whole and stays.
    """
    refused: InputError | None = None
    for path in (checkpoint, checkpoints.before(checkpoint)):
        if not path.exists():
            continue
        try:
            reports = run.restore(path)
        except (checkpoints.DamagedError, checkpoints.OtherRunError) as error:
            run.renew()  # half a state may have been taken over
            if refused is None or isinstance(refused, checkpoints.OtherRunError):
                refused = error
            continue
        if path != checkpoint:  # the next one moves the newest to where this is
            os.replace(path, checkpoint)
            reason = refused or f"{checkpoint} is gone"
            warnings.warn(f"{reason}: going on from epoch {len(reports)}", stacklevel=3)
        return reports
    if refused is not None:
        if isinstance(refused, checkpoints.OtherRunError):
            raise refused
        checkpoints.remove(checkpoint)
        warnings.warn(f"{refused}: starting over", stacklevel=3)
    return []
