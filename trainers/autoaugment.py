"""AutoAugment's CIFAR-10 policy and Cutout, as the code of MATE's first author has them.

Cubuk et al. 2019 (AutoAugment), DeVries & Taylor 2017 (Cutout). The policy and the operations are
torchvision's; here images that get the same operation are taken together, which is what makes it
fast, and every random number comes from the pass's own draw.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

FILL = 128  # of what a shift uncovers, as in BYOT's repository
BINS = 10  # magnitudes of an operation

Step = tuple[str, float]  # operation of torchvision's, magnitude with its sign


def draw(n: int, side: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """The random numbers of one pass over n images of that side (pixels)."""
    return {
        "policies": torch.randint(len(_policies()), (n,), generator=generator),
        "chances": torch.rand((n, 2), generator=generator),
        "signs": torch.randint(2, (n, 2), generator=generator),
        "holes": torch.randint(side, (n, 2), generator=generator),
    }


def autoaugment(pixels: Tensor, policies: Tensor, chances: Tensor, signs: Tensor) -> Tensor:
    """Each image through one of the 25 sub-policies: two operations, each with its probability.

    Args:
        pixels: (B, C, S, S) uint8.
        policies: (B,), 0..24. chances: (B, 2) in 0..1; an operation of probability p is done where
            this is at most p. signs: (B, 2); 0 turns a signed magnitude round.

    Returns:
        (B, C, S, S) uint8.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import _apply_op

    chosen = zip(policies.tolist(), chances.tolist(), signs.tolist(), strict=True)
    steps = [_steps(policy, chance, sign, pixels.shape[-1]) for policy, chance, sign in chosen]
    pixels = pixels.clone(memory_format=torch.contiguous_format)
    for place in range(2):
        groups: dict[Step, list[int]] = {}
        for image, pair in enumerate(steps):
            if (step := pair[place]) is not None:
                groups.setdefault(step, []).append(image)
        for (name, magnitude), members in groups.items():
            index = torch.tensor(members, device=pixels.device)
            changed = _apply_op(
                pixels[index], name, magnitude, InterpolationMode.NEAREST, [FILL] * pixels.shape[1]
            )
            pixels[index] = changed
    return pixels


def cutout(pixels: Tensor, holes: Tensor) -> Tensor:
    """A black square of half the side, anywhere: its middle lies in the image, its edges need not.

    Args:
        pixels: (B, C, S, S) uint8.
        holes: (B, 2), the middle's row and column.
    """
    side = pixels.shape[-1]
    half = side // 4
    line = torch.arange(side, device=pixels.device)
    inside = (line >= holes[..., None] - half) & (line < holes[..., None] + half)  # (B, 2, S)
    hole = inside[:, 0, :, None] & inside[:, 1, None, :]
    return pixels.masked_fill(hole[:, None], 0)


@lru_cache
def _policies() -> list[Any]:
    """25 pairs of (operation, probability, number of its magnitude or None)."""
    from torchvision.transforms.autoaugment import AutoAugment, AutoAugmentPolicy

    return list(AutoAugment(AutoAugmentPolicy.CIFAR10).policies)


@lru_cache
def _magnitudes(side: int) -> dict[str, tuple[Tensor, bool]]:
    """Operation -> its magnitudes, and whether they have a sign."""
    from torchvision.transforms.autoaugment import AutoAugment, AutoAugmentPolicy

    policy = AutoAugment(AutoAugmentPolicy.CIFAR10)
    space: dict[str, tuple[Tensor, bool]] = policy._augmentation_space(BINS, (side, side))
    return space


def _steps(policy: int, chances: list[float], signs: list[int], side: int) -> list[Step | None]:
    """What is done to one image, in order; None where the chance was missed."""
    made: list[Step | None] = []
    for (name, probability, number), chance, sign in zip(
        _policies()[policy], chances, signs, strict=True
    ):
        if chance > probability:
            made.append(None)
            continue
        values, signed = _magnitudes(side)[name]
        magnitude = float(values[number]) if number is not None else 0.0
        made.append((name, -magnitude if signed and sign == 0 else magnitude))
    return made
