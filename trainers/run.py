"""One config on one device: network, teachers and optimizer, an epoch of training, a score."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers import checkpoints
from trainers.averaging import Average
from trainers.catalog import is_path
from trainers.config import TrialConfig
from trainers.data import Images, batches, score_batch
from trainers.draws import Draws
from trainers.exits import MultiExitNet, build_network
from trainers.losses import loss
from trainers.memory import keep_freed
from trainers.own import FILES
from trainers.paths import use_fast_paths
from trainers.reports import EpochReport
from trainers.scoring import Tally
from trainers.sgd import SGD
from trainers.teachers import Teachers

LOOK_EVERY = 50  # batches, between two looks at the loss on a GPU, which waits for it


def learning_rate(config: TrialConfig, epoch: int) -> float:
    """The lr of an epoch.

    Args:
        config: lr, schedule and epochs are read.
        epoch: Epochs completed before this one.
    """
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
    if config.schedule == "constant":
        return config.lr
    passed = sum(epoch >= milestone for milestone in config.milestones)
    return float(config.lr * 0.1**passed)


def _placed(images: Images) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches to score, each with the places (B,) of its images."""
    begin = 0
    for pixels, labels in batches(images, score_batch(images)):
        places = torch.arange(begin, begin + len(labels), device=labels.device)
        begin += len(labels)
        yield places, pixels, labels


def fresh(config: TrialConfig) -> tuple[MultiExitNet, Teachers]:
    """Network and teachers as the config's seed makes them, on the CPU."""
    with Draws(config.seed).taken():
        network = build_network(config)
        return network, Teachers(config, network.features)


def epoch_generator(config: TrialConfig, epoch: int) -> torch.Generator:
    """What order and augmentation of an epoch are drawn from.

    They depend on (seed, epoch) alone, so that a run goes on from a checkpoint bit for bit without
    any random state in it.
    """
    return torch.Generator().manual_seed((config.seed * 1_000_003 + epoch) % 2**63)


class Run:
    """Network, teachers and optimizer of one config on one device.

    Attributes:
        network, teachers: What is trained.
        average: The moving average of both where the config has `ema`, else None. Where there is
            one it is what is scored and exported.
    """

    def __init__(self, config: TrialConfig, device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.digests = config.digests  # of the user's files, whatever is edited later
        network, teachers = fresh(config)
        if self.device.type == "cpu":
            keep_freed()
            use_fast_paths(network)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teachers = teachers.to(self.device)
        live = nn.ModuleDict({"network": self.network, "teachers": self.teachers})
        self.average = Average(live, config.ema) if config.ema else None
        learning = [p for p in self.network.parameters() if p.requires_grad]  # others are frozen
        groups: list[dict[str, Any]] = [{"params": learning}]
        if learned := list(self.teachers.parameters()):
            groups.append({"params": learned})
        settings = {name: getattr(config, name) for name in ("lr", "momentum", "weight_decay")}
        self.optimizer = SGD(groups, **settings)

    @property
    def path(self) -> str:
        """How it trains, for people: which way through a step, and the precision."""
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            text = f"CPU, fast kernels, {self.config.precision}, {threads} thread"
            return text if threads == 1 else f"{text}s"
        return f"{self.device.type.upper()}, step by step, {self.config.precision}"

    def renew(self) -> None:
        """Back to fresh weights."""
        self.__init__(self.config, str(self.device))  # type: ignore[misc]

    def forward(self, images: Tensor, network: MultiExitNet | None = None) -> tuple[Tensor, Tensor]:
        """Features (M, B, C) and logits (M, B, K) in float32, of the trained network if None."""
        images = images.contiguous(memory_format=torch.channels_last)
        mixed = self.config.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            features, logits = (network or self.network)(images)
        return features.float(), logits.float()

    def judged(self) -> tuple[MultiExitNet, Teachers]:
        """What is scored, in evaluation mode: the averaged network and teachers, if there are."""
        network: Any = self.network
        teachers: Any = self.teachers
        if self.average is not None:
            averaged = self.average.look()
            network, teachers = averaged["network"], averaged["teachers"]
        return network.eval(), teachers.eval()

    def step(self, images: Tensor, labels: Tensor, epoch: int = 0) -> Tensor:
        """One step of SGD on a batch.

        Args:
            images: (B, C, H, W), normalised. labels: (B,).
            epoch: Epochs completed before this one.

        Returns:
            Its loss, a scalar, nats.
        """
        features, logits = self.forward(images)
        value = loss(features, logits, labels, self.teachers, self.config, epoch).total
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.teachers.anneal(logits)
        if self.average is not None:
            self.average.update()
        return value.detach()

    def train_epoch(self, images: Images, epoch: int) -> float:
        """One pass over the images. Returns the mean loss, nats; not finite if it diverged."""
        config = self.config
        self.network.train()
        self.teachers.train()
        lr = learning_rate(config, epoch)
        for group, factor in zip(self.optimizer.param_groups, (1.0, config.mix_lr), strict=False):
            group["lr"] = lr * factor
        generator = epoch_generator(config, epoch)
        total, seen = torch.zeros((), device=self.device), 0
        look_every = 1 if self.device.type == "cpu" else LOOK_EVERY
        draws = Draws(generator.initial_seed(), self.device)  # of dropout
        for nth, (pixels, labels) in enumerate(
            batches(
                images,
                config.batch_size,
                augmentation=config.augmentation,
                shuffle=True,
                generator=generator,
            )
        ):
            if len(labels) == 1:
                continue  # a last batch of one image has no variance for batch norm
            seen += len(labels)
            with draws.taken():
                total += self.step(pixels, labels, epoch) * len(labels)
            if nth % look_every == 0 and not math.isfinite(float(total)):
                break  # diverged: the rest of the epoch would be for nothing
        return float(total) / seen

    def temperature(self, epoch: int) -> float | None:
        """T as the epoch left it, or None where nothing teaches."""
        return float(self.teachers.temperature(epoch)) if self.teachers.number else None

    @torch.inference_mode()
    def confidence(self, images: Images) -> Tensor:
        """(M, n) largest softmax value of each exit on each image."""
        network, _ = self.judged()
        tally = Tally(self.config.exits, 0, len(images), self.device)
        for places, pixels, labels in _placed(images):
            tally.exits(self.forward(pixels, network)[1], labels, places)
        return tally.sure

    @torch.inference_mode()
    def raw(self, images: Images) -> tuple[float, ...]:
        """(M,) accuracies of the network without averaging; empty where that is the one scored."""
        if self.average is None:
            return ()
        self.network.eval()
        right = torch.zeros(self.config.exits, device=self.device)
        for pixels, labels in batches(images, score_batch(images)):
            right += (self.forward(pixels)[1].argmax(dim=-1) == labels).sum(dim=1)
        return tuple((right / len(images.labels)).tolist())

    @torch.inference_mode()
    def counted(self, images: Images, epoch: int) -> tuple[Tally, tuple[float, ...]]:
        """One pass over images with what is scored, and `raw` of them; see `score`."""
        network, teachers = self.judged()
        temperature = teachers.temperature(epoch)
        tally = Tally(self.config.exits, teachers.number, len(images), self.device)
        for places, pixels, labels in _placed(images):
            features, logits = self.forward(pixels, network)
            tally.exits(logits, labels, places)
            tally.teachers(features, logits, labels, teachers, temperature)
        return tally, self.raw(images)

    def score(
        self,
        images: Images,
        epoch: int = 0,
        *,
        calibrate: Images | None = None,
        cross_fit: bool = False,
        rows: NDArray[np.int64] | None = None,
    ) -> dict[str, Any]:
        """Accuracy of exits and teachers, the mean mix, and the budget curve of a report.

        With `ema` all of the averaged network and teachers, and `raw` of the network itself.

        Args:
            images: To score.
            epoch: Epochs completed before the last one, whose T softens what exits learn from.
            calibrate: Held-out images to set the thresholds of dynamic inference on.
            cross_fit: The images are held-out ones: each half gets its thresholds from the other.
            rows: (n,) which of the stored images they are; then each image's `hits` are kept.
        """
        tally, raw = self.counted(images, epoch)
        held = None if calibrate is None or cross_fit else self.confidence(calibrate)
        scored = tally.summary(
            self.config, images.labels, held=held, cross_fit=cross_fit, rows=rows
        )
        return {**scored, "raw": raw}

    def save(self, path: Path, reports: list[EpochReport]) -> None:
        """The whole state after an epoch, atomically."""
        checkpoints.write(
            path,
            {
                "config": self.config.model_dump_json(),
                **self.digests,
                "network": self.network.state_dict(),
                "teachers": self.teachers.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                **({"average": self.average.state_dict()} if self.average is not None else {}),
                "reports": [report.model_dump_json() for report in reports],
            },
            packed=True,
        )

    def _differences(self, stored: dict[str, Any], digests: dict[str, Any]) -> list[str]:
        """The fields in which a stored config is another one than this run's.

        A user's network or scheme is what is in its file, wherever that lies now, and a folder of
        images what the study or the config says that it is: either may have been moved with them.
        """
        mine, named, others = self.config, dict(stored), []
        for field in FILES:
            before, now = named.get(field, getattr(mine, field)), getattr(mine, field)
            both = is_path(before) and is_path(now)
            if digests.get(field) != self.digests[field] if both else before != now:
                others.append(field)
            named[field] = now
        if is_path(named["dataset"]) and is_path(mine.dataset):
            named["dataset"] = mine.dataset
        was = TrialConfig.read(named).model_dump()
        changed = [name for name, value in mine.model_dump().items() if was[name] != value]
        return sorted([*changed, *others])

    def restore(self, path: Path) -> list[EpochReport]:
        """Goes back to a saved state and returns its reports.

        Raises:
            OtherRunError: Of another config.
            InputError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError: As
                `checkpoints.read` raises them.
        """
        content = checkpoints.read(path, str(self.device))
        try:
            if changed := self._differences(json.loads(content["config"]), content):
                raise checkpoints.OtherRunError(
                    f"{path} belongs to another run: {', '.join(changed)} differ; "
                    "remove the file to start over"
                )
            reports = [EpochReport.model_validate_json(text) for text in content["reports"]]
            self.network.load_state_dict(content["network"])
            self.teachers.load_state_dict(content["teachers"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(content["average"])
        except (checkpoints.OtherRunError, torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = " ".join(repr(error).split())[:120]
            raise checkpoints.DamagedError(f"{path} is damaged: {reason}") from None
        return reports
