"""A trained network on disk: its weights, its normalisation, its exits, and where it comes from.

trained = load("runs/digits-cnn4-diverse_alpha/best/1-0f3a.../seed-1")
probabilities = trained.predict(images)      # (M, B, K), a row an exit
early = trained.stop_early(images, trained.thresholds(100e3))      # for 100 kFLOPs an image
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers import checkpoints, dynamic
from trainers.catalog import InputError, is_path
from trainers.config import TrialConfig
from trainers.costs import ExitCost, costs
from trainers.data import Images, batches, scaling, score_batch
from trainers.exits import MultiExitNet, build_network
from trainers.imagefiles import square
from trainers.own import FILES
from trainers.places import found, noted, renamed
from trainers.reports import EpochReport
from trainers.schemes import scheme_named
from trainers.teachers import Teachers

FILE = "weights.pt"


class Answers(NamedTuple):
    """What a network's exits and teachers say to n images.

    Attributes:
        probabilities: (M, n, K) float32, a softmax an exit.
        taught: (N, n) int64, the class that each teacher chooses; None if they are not known.
        labels: (n,) int64.
    """

    probabilities: NDArray[np.float32]
    taught: NDArray[np.int64] | None
    labels: NDArray[np.int64]


class Early(NamedTuple):
    """What a network says to B images, each at the first exit that is sure enough.

    Attributes:
        probabilities: (B, K), that exit's softmax.
        exits: (B,) int64, which exit, 0 = shallowest.
        flops: Mean per image, the heads that it passes included.
    """

    probabilities: Tensor
    exits: Tensor
    flops: float


@dataclass(frozen=True)
class Trained:
    """A trained network and what is needed to use it.

    Attributes:
        config: What it was trained with.
        network: In evaluation mode, on the CPU; moved elsewhere, it takes images that are there.
        mean, std: Per channel, of pixels scaled to 0..1.
        classes: Names, in the order of the logits.
        exits: What each exit costs.
        report: Of its last epoch, with the accuracies.
        teachers: The scheme's, in evaluation mode; None of an older file whose teachers had learned
            weights, which it does not hold.
        confidence: (M, n), the largest class probability of each exit for n images of the hold-out,
            which it was not trained on; None where it was, or of an older file.
        data_root: Where the data set lay; None if not known.
    """

    config: TrialConfig
    network: MultiExitNet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    exits: tuple[ExitCost, ...]
    report: EpochReport
    teachers: Teachers | None
    confidence: NDArray[np.float32] | None
    data_root: str | None

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, channels, H, W) uint8 -> float32 as the network was trained on."""
        scale, offset = scaling(self.mean, self.std, pixels.device)
        return pixels.float().mul_(scale.view(1, -1, 1, 1)).add_(offset.view(1, -1, 1, 1))

    def no_thresholds(self) -> str | None:
        """Why there are no thresholds for `stop_early`; None if there are."""
        if len(self.exits) == 1:
            return "a network with one exit has no thresholds"
        if self.confidence is None:
            return (
                "thresholds need what the exits said of images that the network was not trained "
                "on, and its weights hold none: `automate train CONFIG --keep-validation` trains "
                "one that leaves the hold-out out"
            )
        return None

    @torch.inference_mode()
    def predict(self, pixels: Tensor) -> Tensor:
        """Class probabilities of every exit.

        Args:
            pixels: (B, channels, H, W), a uint8 tensor.

        Returns:
            (M, B, K), shallow first.

        Raises:
            InputError: Images of another size or type.
        """
        self._check(pixels)
        logits = self.network(self.normalise(pixels))[1]
        return torch.softmax(logits, dim=-1)

    @torch.inference_mode()
    def last(self, pixels: Tensor) -> Tensor:
        """Class probabilities of the last exit, (B, K); the other heads are not computed.

        Args:
            pixels: As `predict` takes them.
        """
        self._check(pixels)
        alone = self.network.path(len(self.exits) - 1)
        return torch.softmax(alone(self.normalise(pixels)), dim=-1)

    @torch.inference_mode()
    def stop_early(self, pixels: Tensor, limits: Sequence[float]) -> Early:
        """Dynamic inference: each image leaves at the first exit that is sure enough of its class.

        Later stages run on the images that are left alone.

        Args:
            pixels: (B, channels, H, W), a uint8 tensor.
            limits: M thresholds of the largest class probability, e.g. of `thresholds`; the last
                exit takes whatever is left.

        Raises:
            InputError: Images of another size or type, or another number of thresholds.
        """
        self._check(pixels)
        try:
            given = np.atleast_1d(np.asarray(limits, dtype=np.float64)).tolist()
        except (TypeError, ValueError):
            given = [math.nan]
        if any(math.isnan(limit) for limit in given):
            raise InputError(f"limits needs numbers, inf where no image leaves, got {limits!r}")
        if len(given) != len(self.exits):
            raise InputError(
                f"limits needs {len(self.exits)} values, one per exit, got {len(given)}"
            )
        logits, exits = self.network.stop_early(self.normalise(pixels), given)
        spent = torch.tensor([cost.flops_cascade for cost in self.exits], dtype=torch.float64)
        mean = spent[exits.cpu()].mean().item() if len(exits) else 0.0
        return Early(torch.softmax(logits, dim=-1), exits, mean)

    def thresholds(self, flops: float) -> tuple[float, ...]:
        """Thresholds for `stop_early` that keep within a mean cost on the held-out images.

        As in budgeted batch classification (Huang et al. 2018). No image is read: what the exits
        said of the held-out ones lies with the weights.

        Args:
            flops: Most per image, from the first exit's cost to the last one's.

        Returns:
            M values: probabilities, and infinities where no image or every one leaves.

        Raises:
            InputError: A budget that the network cannot spend, or a network that has one exit or
                was trained on the hold-out too.
        """
        if (reason := self.no_thresholds()) is not None:
            raise InputError(reason)
        assert self.confidence is not None
        spent = [cost.flops_cascade for cost in self.exits]
        return tuple(dynamic.limits_within(self.confidence, spent, flops).tolist())

    def read(self, path: str | Path) -> Tensor:
        """An image file as the network takes it: its middle, RGB, of the right size.

        Upright by its EXIF, but for a network of a folder whose images were taken as they are.

        Returns:
            (channels, H, W) uint8.

        Raises:
            InputError: It cannot be read, or the network takes no RGB images.
        """
        self.check_takes_files()
        config = self.config
        as_stored = is_path(config.dataset) and config.resize is None
        image = torch.from_numpy(square(Path(path), config.stored_size, photo=not as_stored).copy())
        edge = (image.shape[-1] - config.image_size) // 2
        inside = slice(edge, edge + config.image_size)
        return image[0, :, inside, inside]

    def check_takes_files(self) -> None:
        """Raises InputError unless an image file can be made into what the network takes."""
        if self.config.channels != 3:
            raise InputError(
                f"a network for {self.config.dataset} takes images of {self.config.channels} "
                "channel, which no file is read as"
            )

    def _check(self, pixels: Tensor) -> None:
        """Raises InputError for images of another size or type."""
        wanted = (self.config.channels, self.config.image_size, self.config.image_size)
        if not isinstance(pixels, Tensor):
            raise InputError(
                f"images need to be a torch tensor, got {type(pixels).__name__}: "
                "torch.from_numpy(images) makes one of an array"
            )
        if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != wanted:
            raise InputError(
                f"images need to be torch.uint8 of shape (B, {', '.join(map(str, wanted))}), "
                f"got {pixels.dtype} of shape {tuple(pixels.shape)}"
            )

    @torch.no_grad()  # not inference_mode: what moves to a device and back stays trainable
    def answers(self, images: Images, device: str = "cpu") -> Answers:
        """What exits and teachers say to many images.

        Args:
            images: Of the config's size; the network's own normalisation is used.
            device: "cpu" or "cuda".
        """
        network = self.network.to(device)
        teachers = None if self.teachers is None else self.teachers.to(device)
        images = replace(images, mean=self.mean, std=self.std)
        exits, taught = [], []
        for pixels, _ in batches(images, score_batch(images)):
            features, logits = network(pixels.to(device))
            exits.append(logits.softmax(dim=-1).cpu())
            if teachers is not None:
                taught.append(teachers(features, logits)[0].argmax(dim=-1).cpu())
        for part in (network, teachers):
            if part is not None:
                part.to("cpu")
        return Answers(
            probabilities=torch.cat(exits, dim=1).numpy(),
            taught=torch.cat(taught, dim=1).numpy() if taught else None,
            labels=images.labels.cpu().numpy(),
        )


def save(
    checkpoint: Path,
    config: TrialConfig,
    images: Images,
    folder: Path,
    *,
    held: Images | None = None,
    data_root: str | None = None,
    device: str = "cpu",
) -> Path:
    """Makes a finished run's checkpoint a trained network in `folder`.

    Of a run with `ema` the averaged network: the one that its accuracies are of.

    Args:
        checkpoint: Of a run that has come to its last epoch.
        config: Of that run; names the user's files by where they are now.
        images: What it was trained on; its normalisation and class names are kept.
        folder: Where `weights.pt` goes.
        held: Of its hold-out, where that was not trained on: what the exits say of them is kept.
        data_root: See `Trained`.
        device: Where that is computed, "cpu" or "cuda".
    """
    content = checkpoints.read(checkpoint)
    judged = content.get("average", content)
    path = folder / FILE
    checkpoints.write(
        path,
        {
            "config": config.model_dump_json(),
            **{field: content.get(field) for field in FILES},
            "places": noted(
                (config.backbone, config.scheme, config.dataset, data_root), folder.absolute()
            ),
            "network": judged["network"],
            "teachers": judged["teachers"],
            "confidence": None if held is None else _confidence(config, judged, held, device),
            "data_root": data_root,
            "report": content["reports"][-1],
            "mean": list(images.mean),
            "std": list(images.std),
            "classes": list(images.classes),
        },
    )
    return path


@torch.no_grad()
def _confidence(config: TrialConfig, judged: dict[str, Any], held: Images, device: str) -> Tensor:
    """(M, n) of a run's network, on the CPU."""
    network = build_network(config)
    network.load_state_dict(judged["network"])
    network.eval().to(device)
    sure = [
        network(pixels.to(device))[1].softmax(dim=-1).amax(dim=-1)
        for pixels, _ in batches(held, score_batch(held))
    ]
    return torch.cat(sure, dim=1).cpu()


def load(run: str | Path) -> Trained:
    """A trained network, from its run's folder or its weights file.

    Raises:
        InputError: No such file, one that is damaged or not ours, or a user's network or scheme
            that is not where it was, or was edited.
    """
    path = Path(run)
    file = path / FILE if path.is_dir() else path
    seeds = [] if file.exists() else sorted(one.parent.name for one in path.glob(f"seed-*/{FILE}"))
    if seeds:
        raise InputError(f"{path} holds several runs: name one of them, {', '.join(seeds)}")
    content = checkpoints.read(file)
    try:
        named = json.loads(content["config"])
        digests = {field: content.get(field) for field in FILES}  # none of ours, nor of older files
        known = {named.get(field): digest for field, digest in digests.items()}
        names = found(content.get("places"), file.parent, known)
        config = TrialConfig.read(renamed(named, names))
        for field, digest in digests.items():
            if digest is not None and config.digests[field] not in (None, digest):
                raise InputError(
                    f"{field} file {getattr(config, field)!r} has changed since {path} was "
                    "trained: put it back, or train again"
                )
        network = build_network(config)
        network.load_state_dict(content["network"])
        teachers = Teachers(config, network.features).eval()
        if "teachers" in content:
            teachers.load_state_dict(content["teachers"])
        # a file from before they were kept has those that need no weights
        complete = "teachers" in content or not scheme_named(config.scheme).learned
        kept = content.get("confidence")
        return Trained(
            config=config,
            network=network.eval(),
            mean=tuple(content["mean"]),
            std=tuple(content["std"]),
            classes=tuple(content["classes"]),
            exits=costs(config),
            report=EpochReport.model_validate_json(content["report"]),
            teachers=teachers if complete else None,
            confidence=None if kept is None else kept.numpy(),
            data_root=renamed(content.get("data_root"), names),
        )
    except InputError:  # says by itself what it misses, e.g. a user's backbone
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(repr(error).split())[:160]
        raise InputError(f"{path} is no trained network of ours: {reason}") from None
