"""AutoAugment's CIFAR-10 policy and Cutout on batches of uint8 images.

The augmentation of BYOT's repository (ArchipLab-LinfengZhang/pytorch-self-distillation-final): crop
and mirror padded with grey 128, one of 25 sub-policies an image, Cutout of half the side before the
normalisation. Policy and operations are torchvision's (v2, nearest pixel), image for image; what
comes from outside an image is 128, as there. Cutout is that of uoguelph-mlrg/Cutout: one black
square, its centre anywhere in the image, cut off at the border.

A sub-policy is two operations in turn, each done or left out. So in each turn every image has at
most one operation, and images with the same one go through it together. Those that only move pixels
and those that only map values are the same for every image: torchvision is asked once where each
pixel comes from or what each value becomes, and all such images are one gather.
"""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

FILL = 128  # grey, outside of an image
BINS = 10  # of every operation's magnitude

Step = tuple[str, float, int]  # operation, probability, bin of its magnitude

# Cubuk et al. 2019, Table 7. Operations without magnitude have bin 0.
POLICY: tuple[tuple[Step, Step], ...] = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)

MOVES = ("ShearY", "TranslateX", "TranslateY", "Rotate")  # only choose which pixel goes where
MAPS = ("Invert", "Brightness", "Posterize", "Solarize")  # each value becomes another
SIGNED = ("ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
          "Sharpness")  # fmt: skip

Action = tuple[str, int, int]  # operation, bin, sign
# Every action of the policy; an image's action is a place in this list, 0 for none.
ACTIONS: tuple[Action | None, ...] = (
    None,
    *sorted(
        {
            (name, size, sign)
            for steps in POLICY
            for name, _, size in steps
            for sign in ((1, -1) if name in SIGNED else (1,))
        }
    ),
)


def apply(pixels: Tensor, action: Action, fill: float = FILL) -> Tensor:
    """One operation on images that all have it, by torchvision.

    Args:
        pixels: (..., C, H, W) uint8; a move also takes float32.
        action: One of ACTIONS.
        fill: What comes from outside the image.
    """
    # Imported here: torchvision takes a second, which no other augmentation needs to pay.
    from torchvision.transforms.v2 import functional

    name, size, sign = action
    height, width = pixels.shape[-2:]
    most = {"ShearY": 0.3, "Rotate": 30.0, "TranslateX": 150 / 331 * width,
            "TranslateY": 150 / 331 * height}.get(name, 0.9)  # fmt: skip
    # float32, as torchvision's own tables are
    amount = sign * float(torch.linspace(0, most, BINS, dtype=torch.float32)[size])
    moved: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    match name:
        case "ShearY":
            moved |= {"shear": [0.0, math.degrees(math.atan(amount))], "center": [0, 0]}
            done = functional.affine(pixels, **moved, fill=[fill])
        case "TranslateX":
            moved["translate"] = [int(amount), 0]
            done = functional.affine(pixels, **moved, fill=[fill])
        case "TranslateY":
            moved["translate"] = [0, int(amount)]
            done = functional.affine(pixels, **moved, fill=[fill])
        case "Rotate":
            done = functional.rotate(pixels, amount, fill=[fill])
        case "Brightness":
            done = functional.adjust_brightness(pixels, 1 + amount)
        case "Color":
            done = functional.adjust_saturation(pixels, 1 + amount)
        case "Contrast":
            done = functional.adjust_contrast(pixels, 1 + amount)
        case "Sharpness":
            done = functional.adjust_sharpness(pixels, 1 + amount)
        case "Posterize":
            done = functional.posterize(pixels, 8 - round(size / ((BINS - 1) / 4)))
        case "Solarize":
            left = torch.linspace(1, 0, BINS, dtype=torch.float32)[size]
            done = functional.solarize(pixels, 255 * float(left))
        case "AutoContrast":
            done = functional.autocontrast(pixels)
        case "Equalize":
            done = functional.equalize(pixels)
        case _:
            done = functional.invert(pixels)
    changed: Tensor = done
    return changed


@cache
def sources(height: int, width: int, device: torch.device) -> Tensor:
    """(actions, H·W): where each pixel comes from; H·W for outside; only rows of MOVES matter."""
    places = torch.arange(height * width, dtype=torch.float32).view(1, height, width)
    rows = [
        apply(places, action, fill=height * width) if action and action[0] in MOVES else places
        for action in ACTIONS
    ]
    return torch.stack(rows).flatten(1).long().to(device)


@cache
def values(device: torch.device) -> Tensor:
    """(actions, 256) uint8: what each value becomes; only rows of MAPS matter."""
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    rows = [apply(every, action) if action and action[0] in MAPS else every for action in ACTIONS]
    return torch.stack(rows).flatten(1).to(device)


def draw(
    n: int, height: int, width: int, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """The random numbers of a whole pass.

    Drawn in this order: the sub-policies `randint(25, (n,))`; `rand(n, 2)`, a step is done where it
    is below its probability; the signs `randint(2, (n, 2))`, 0 negative; Cutout's centres
    `randint(H, (n,))` and `randint(W, (n,))`.

    Args:
        n: Images of the pass. height, width: Theirs, pixels.
        generator: On the CPU; torch's default one if None.

    Returns:
        What a pass will do to each image, by place in the pass: "actions" (n, 2) int64, places in
        ACTIONS, the first operation and the second; "centres" (n, 2) int64, row and column of the
        square that Cutout takes.
    """
    policies = torch.randint(len(POLICY), (n,), generator=generator)
    chances = torch.rand(n, 2, generator=generator)
    signs = torch.randint(2, (n, 2), generator=generator)
    rows = torch.randint(height, (n,), generator=generator)
    columns = torch.randint(width, (n,), generator=generator)
    number = {action: place for place, action in enumerate(ACTIONS)}
    table = torch.tensor(
        [
            [
                [number[name, size, sign if name in SIGNED else 1] for sign in (-1, 1)]
                for name, _, size in steps
            ]
            for steps in POLICY
        ]
    )  # (sub-policies, 2 steps, 2 signs)
    likely = torch.tensor([[chance for _, chance, _ in steps] for steps in POLICY])
    chosen = table[policies].gather(2, signs[:, :, None])[:, :, 0]
    actions = torch.where(chances < likely[policies], chosen, 0)
    return {"actions": actions, "centres": torch.stack((rows, columns), 1)}


def autoaugment(pixels: Tensor, actions: Tensor) -> Tensor:
    """Each image after its two steps, of which none, one or both are done.

    Args:
        pixels: (B, C, H, W) uint8; not written to.
        actions: (B, 2), of `draw`, on the CPU.

    Returns:
        (B, C, H, W) uint8.
    """
    pixels = pixels.contiguous().clone()
    for turn in actions.unbind(dim=1):
        _one_turn(pixels, turn)
    return pixels


def _one_turn(pixels: Tensor, turn: Tensor) -> None:
    """At most one operation an image, in place; turn (B,) is on the CPU, so nothing waits for the
    device."""
    device, (_, channels, height, width) = pixels.device, pixels.shape
    groups: dict[Action | str, list[int]] = {}
    for place, number in enumerate(turn.tolist()):
        if action := ACTIONS[number]:
            name = action[0]
            kind = "move" if name in MOVES else "map" if name in MAPS else action
            groups.setdefault(kind, []).append(place)
    for kind, listed in groups.items():
        places = torch.tensor(listed)
        which = turn[places].to(device)
        places = places.to(device)
        some = pixels.index_select(0, places)
        if kind == "move":
            source = sources(height, width, device).index_select(0, which)
            outside = some.new_full((len(listed), channels, 1), FILL)
            extended = torch.cat((some.flatten(2), outside), dim=2)
            index = source[:, None].expand(-1, channels, -1)
            some = extended.gather(2, index).view_as(some)
        elif kind == "map":
            table = values(device).index_select(0, which)
            some = table.gather(1, some.flatten(1).long()).view_as(some)
        elif isinstance(kind, tuple):
            some = apply(some, kind)
        pixels.index_copy_(0, places, some)


def cutout(pixels: Tensor, centres: Tensor) -> Tensor:
    """A black square of half the side in each image, cut off at the border (DeVries & Taylor 2017).

    Args:
        pixels: (B, C, H, W) uint8.
        centres: (B, 2), row and column, of `draw`.

    Returns:
        (B, C, H, W) uint8.
    """
    height, width = pixels.shape[-2:]
    half = min(height, width) // 2 // 2
    at = centres.to(pixels.device)[:, :, None]

    def within(size: int, centre: Tensor) -> Tensor:
        apart = torch.arange(size, device=pixels.device) - centre
        return (apart >= -half) & (apart < half)

    square = within(height, at[:, 0])[:, :, None] & within(width, at[:, 1])[:, None, :]
    return pixels.masked_fill(square[:, None], 0)
