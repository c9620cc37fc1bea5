"""A trained network on disk: its weights, its normalisation, its exits, and where it comes from.

trained = load("runs/digits-cnn4-diverse_alpha/best/1-0f3a.../seed-1")
probabilities = trained.predict(images)      # (M, B, K), a row an exit
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainers import checkpoints
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.costs import ExitCost, costs
from trainers.data import Images
from trainers.exits import MultiExitNet, build_network
from trainers.reports import EpochReport

FILE = "weights.pt"


@dataclass(frozen=True)
class Trained:
    """A trained network and what is needed to use it.

    Attributes:
        config: What it was trained with.
        network: In evaluation mode, on the CPU.
        mean, std: Per channel, of pixels scaled to 0..1.
        classes: Names, in the order of the logits.
        exits: What each exit costs.
        report: Of its last epoch, with the accuracies.
    """

    config: TrialConfig
    network: MultiExitNet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    exits: tuple[ExitCost, ...]
    report: EpochReport

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, channels, H, W) uint8 -> float32 as the network was trained on."""
        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        return (pixels.float() / 255 - mean) / std

    @torch.inference_mode()
    def predict(self, pixels: Tensor) -> Tensor:
        """Class probabilities of every exit.

        Args:
            pixels: (B, channels, H, W) uint8.

        Returns:
            (M, B, K), shallow first.

        Raises:
            InputError: Images of another size or type.
        """
        wanted = (self.config.channels, self.config.image_size, self.config.image_size)
        if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != wanted:
            raise InputError(
                f"images need to be uint8 of shape (B, {', '.join(map(str, wanted))}), "
                f"got {pixels.dtype} of shape {tuple(pixels.shape)}"
            )
        logits = self.network(self.normalise(pixels))[1]
        return torch.softmax(logits, dim=-1)


def save(checkpoint: Path, images: Images, folder: Path) -> Path:
    """Makes a finished run's checkpoint a trained network in `folder`.

    Args:
        checkpoint: Of a run that has come to its last epoch.
        images: What it was trained on; its normalisation and class names are kept.
        folder: Where `weights.pt` goes.
    """
    content = checkpoints.read(checkpoint)
    path = folder / FILE
    checkpoints.write(
        path,
        {
            "config": content["config"],
            "network": content["network"],
            "report": content["reports"][-1],
            "mean": list(images.mean),
            "std": list(images.std),
            "classes": list(images.classes),
        },
    )
    return path


def load(run: str | Path) -> Trained:
    """A trained network, from its run's folder or its weights file.

    Raises:
        InputError: No such file, or one that is damaged or not ours.
    """
    path = Path(run)
    content = checkpoints.read(path / FILE if path.is_dir() else path)
    try:
        config = TrialConfig.model_validate_json(content["config"])
        network = build_network(config)
        network.load_state_dict(content["network"])
        return Trained(
            config=config,
            network=network.eval(),
            mean=tuple(content["mean"]),
            std=tuple(content["std"]),
            classes=tuple(content["classes"]),
            exits=costs(config),
            report=EpochReport.model_validate_json(content["report"]),
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is no trained network of ours: {error!r:.160}") from None
