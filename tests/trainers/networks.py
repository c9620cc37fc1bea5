"""Configs of every backbone, each on a data set that it takes."""

from typing import Any

from trainers import catalog
from trainers.config import TrialConfig


def config(backbone: str, **changes: Any) -> TrialConfig:
    """A backbone on the images that it takes: digits, or CIFAR-100's."""
    sizes = catalog.BACKBONES[backbone].image_sizes
    dataset = "cifar100" if 32 in sizes else "digits"
    return TrialConfig(dataset=dataset, backbone=backbone, **changes)
