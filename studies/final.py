"""Full training of an exported config: several seeds, to the last epoch, the test split read once.

Each seed's run lies in a folder of its own beside the config and goes on from its checkpoint; the
folder's name carries a digest of the config, so that a changed file never meets older runs.
"""

import hashlib
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studies import machine
from studies.export import read_exported
from studies.plan import found_images
from trainers.catalog import InputError
from trainers.checkpoints import put, remove
from trainers.config import TrialConfig
from trainers.devices import check_threads, settled_device
from trainers.places import back, found
from trainers.reports import EpochReport

OnReport = Callable[[int, EpochReport], None]


@dataclass(frozen=True)
class ExitSummary:
    """Test accuracy of one exit over the seeds.

    Attributes:
        exit: 1 = shallowest.
        flops: Per image, this head only.
        mean: Top-1, fraction.
        std: Sample standard deviation; None for one seed.
        n: Seeds that ran to the end.
        top5: Mean top-5, fraction.
        top5_std: Its sample standard deviation; None for one seed.
    """

    exit: int
    flops: int
    mean: float
    std: float | None
    n: int
    top5: float
    top5_std: float | None = None


@dataclass(frozen=True)
class FinalSummary:
    """What the seeds of one config came to.

    Attributes:
        folder: Holds a folder a seed, and `summary.json`.
        config: What was trained; the seeds differ in `seed` alone.
        trained_on: "train + validation", or "train" where the hold-out is kept for thresholds
            (digits: always).
        seeds: That ran to the end.
        diverged: Seeds whose loss was not finite.
        exits: Shallow first; empty if every seed diverged.
    """

    folder: Path
    config: TrialConfig
    trained_on: str
    seeds: tuple[int, ...]
    diverged: tuple[int, ...]
    exits: tuple[ExitSummary, ...]

    def as_json(self) -> str:
        """The summary as JSON text."""
        fields = asdict(self) | {
            "folder": str(self.folder),
            "config": self.config.model_dump(mode="json"),
        }
        return json.dumps(fields, indent=2)


def train_finals(
    path: Path,
    *,
    seeds: int = 3,
    keep_validation: bool = False,
    data_root: str | Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    on_report: OnReport = lambda seed, report: None,
) -> FinalSummary:
    """Trains a config of a YAML file with fresh seeds and reads the test split once a seed.

    Args:
        path: An exported config.
        seeds: How many; those after the config's own, which the search has already used.
        keep_validation: Leave the hold-out untrained, for thresholds of dynamic inference.
        data_root: Where the data set lies; what the search used if not given.
        device: "cpu" or "cuda"; CUDA where there is one if not given.
        threads: CPU threads; the faster of one and all, by a moment of training, if not given.
        on_report: Called with (seed, report) after each epoch.

    Returns:
        What they came to. Seeds that diverged are named in it, and no exits if all did.

    Raises:
        InputError: A broken file, missing data, seeds or threads below 1, or no such device.
    """
    if seeds < 1:
        raise InputError(f"seeds needs to be at least 1, got {seeds}")
    check_threads(threads)
    config, source = read_exported(path)
    device = settled_device(device)
    import torch

    from trainers import trained
    from trainers.data import check, load
    from trainers.loop import train

    if data_root is None and isinstance(source.get("data_root"), str):
        data_root = str(source["data_root"])
    check(config, data_root)
    if threads is None and device == "cpu":
        threads = machine.best_threads(config, device, machine.cores())
    if threads is not None:
        torch.set_num_threads(threads)
    data = load(config, "final-holdout" if keep_validation else "final", data_root)
    folder = path.with_name(f"{path.stem}-{_digest(config, source, path, keep_validation)}")
    last: dict[int, EpochReport] = {}
    diverged = []
    for seed in range(config.seed + 1, config.seed + seeds + 1):
        run = folder / f"seed-{seed}"
        if (run / trained.FILE).exists():
            last[seed] = trained.load(run).report
            on_report(seed, last[seed])
            continue
        checkpoint = run / "checkpoint.pt"
        report = None
        for report in train(config.with_(seed=seed), data, checkpoint=checkpoint, device=device):
            on_report(seed, report)
        assert report is not None
        if report.diverged:
            diverged.append(seed)
            continue
        trained.save(
            checkpoint,
            config.with_(seed=seed),
            data.fit,
            run,
            held=data.calibrate,
            data_root=None if data_root is None else str(Path(data_root).absolute()),
            device=device,
        )
        remove(checkpoint)
        last[seed] = report
    summary = FinalSummary(
        folder=folder,
        config=config,
        trained_on="train + validation" if data.calibrate is None else "train",
        seeds=tuple(last),
        diverged=tuple(diverged),
        exits=_over_seeds(list(last.values())),
    )
    put(folder / "summary.json", f"{summary.as_json()}\n".encode())
    return summary


def _digest(config: TrialConfig, source: Mapping[str, Any], path: Path, keeps: bool) -> str:
    """A file is what is in it, wherever it lies, and a folder of images the one that was named,
    with the images that are in it: seeds of others are not of one network."""
    named = back(found(source.get("places"), path.parent)).get(config.dataset, config.dataset)
    own = {field: digest for field, digest in config.digests.items() if digest is not None}
    fields = config.model_copy(update={**own, "dataset": named})
    # A field that says nothing makes no other folder of what older versions trained.
    silent = {"resize"} if fields.resize is None else None
    text = fields.model_dump_json(exclude=silent) + str(keeps) + (found_images(config) or "")
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _over_seeds(reports: list[EpochReport]) -> tuple[ExitSummary, ...]:
    """Mean and sample standard deviation of each exit."""
    made = []
    for points in zip(*(report.exits for report in reports), strict=True):
        accuracies = [point.accuracy for point in points]
        fives = [point.top5 for point in points]
        made.append(
            ExitSummary(
                exit=points[0].exit,
                flops=points[0].flops,
                mean=statistics.fmean(accuracies),
                std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
                n=len(accuracies),
                top5=statistics.fmean(fives),
                top5_std=statistics.stdev(fives) if len(fives) > 1 else None,
            )
        )
    return tuple(made)
