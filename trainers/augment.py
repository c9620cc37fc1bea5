"""Augmentation as batched tensor code: what is drawn for a pass, and what is done with it.

The random numbers of a whole pass are drawn first, on the CPU whatever the device, so that they
depend on the generator alone and not on the batch size.
"""

import torch
from torch import Tensor

from trainers import autoaugment
from trainers.config import Augmentation

PADDING = 8  # a crop may shift by the side / 8: 4 pixels of 32, 1 of 8

Drawn = dict[str, Tensor]  # name -> (n, ...), by place in the pass


def draw(
    kind: Augmentation, n: int, stored: int, side: int, generator: torch.Generator | None
) -> Drawn:
    """The random numbers of one pass over n images.

    Args:
        kind: "crop_flip" draws the shifts `randint(reach + 1, (n, 2))`, down and right, and the
            mirrors `randint(2, (n,))`; "none" draws nothing; "autoaugment" also what
            `trainers.autoaugment.draw` does.
        n: Images of the pass.
        stored: Side of the stored images (pixels).
        side: Side of the cut ones; reach is `stored - side`, or twice the padding where both are
            the same.
        generator: On the CPU; torch's default one if None.
    """
    if kind == "none":
        return {}
    reach = stored - side + 2 * padding(stored, side)
    shifts = torch.randint(reach + 1, (n, 2), generator=generator)
    mirrors = torch.randint(2, (n,), generator=generator)
    more = autoaugment.draw(n, side, side, generator) if kind == "autoaugment" else {}
    return {"shifts": shifts, "mirrors": mirrors, **more}


def frame(kind: Augmentation, pixels: Tensor, batch_size: int, side: int) -> Tensor | None:
    """What images of a pass are laid into before they are cut: made once, as its border stays.

    Args:
        kind: What is padded with: black, or grey for "autoaugment"; "none" needs no frame.
        pixels: (N, C, S, S) uint8 as stored, of which kind, place and side are read.
        batch_size: B, images at most.
        side: Of the cut ones.

    Returns:
        (2, B, C, S', S') uint8, S' = S + 2 padding: the images, and mirrored ones.
    """
    if kind == "none":
        return None
    stored = pixels.shape[-1]
    padded = stored + 2 * padding(stored, side)
    fill = autoaugment.FILL if kind == "autoaugment" else 0
    return pixels.new_full((2, batch_size, pixels.shape[1], padded, padded), fill)


def augment(
    pixels: Tensor, kind: Augmentation, drawn: Drawn, side: int, framed: Tensor | None
) -> Tensor:
    """A batch cut to its side, and augmented.

    Args:
        pixels: (B, C, S, S) uint8 as stored.
        kind: "none": the middle is cut out. "crop_flip": mirrored or not, then cut out anywhere;
            images that are stored at their own side are padded with black first. "autoaugment":
            the same with grey for black, then the CIFAR-10 policy, then Cutout.
        drawn: The batch's part of what `draw` gave.
        side: Of the result.
        framed: Of `frame`, written over.

    Returns:
        (B, C, side, side) uint8.
    """
    if framed is None:
        edge = (pixels.shape[-1] - side) // 2
        return pixels[..., edge : edge + side, edge : edge + side]
    cut = crop_flip(pixels, drawn["shifts"], drawn["mirrors"], framed, side)
    if kind != "autoaugment":
        return cut
    return autoaugment.cutout(autoaugment.autoaugment(cut, drawn["actions"]), drawn["centres"])


def padding(stored: int, side: int) -> int:
    """Pixels added on each side before a cut: none where the stored images are larger."""
    return side // PADDING if stored == side else 0


def crop_flip(pixels: Tensor, shifts: Tensor, mirrors: Tensor, framed: Tensor, side: int) -> Tensor:
    """Each image mirrored or not, padded, and a square cut out.

    In memory every cut of every padded image is the same pattern of C x side rows of values, begun
    at another place. So the cuts are rows of one strided view, and choosing them copies whole
    pieces: three times as fast as a gather of single pixels (CPU).

    Args:
        pixels: (B, C, H, W) uint8.
        shifts: (B, 2), where the cut begins in the padded image, down and right.
        mirrors: (B,), 1 for mirrored, else 0.
        framed: (2, B or more, C, H + 2p, W + 2p) uint8, contiguous, whose border of p pixels is
            what the images are padded with; its inside is written over.
        side: Height and width of the cut.

    Returns:
        (B, C, side, side) uint8.
    """
    b, channels, high, wide = pixels.shape
    pad = (framed.shape[-1] - wide) // 2
    inner = framed[:, :b, :, pad : pad + high, pad : pad + wide]
    inner[0] = pixels
    inner[1] = pixels.flip(3)
    mirrored, image, channel, row, _ = framed.stride()
    reach = (channels - 1) * channel + (side - 1) * row + side
    cuts = framed.as_strided(
        (framed.numel() - reach + 1, channels, side, side), (1, channel, row, 1)
    )
    places = image * torch.arange(b, device=pixels.device) + mirrored * mirrors
    return cuts.index_select(0, places + shifts[:, 0] * row + shifts[:, 1])
