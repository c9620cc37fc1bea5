"""Scoring a network: what is counted image by image on its device, and what a report makes of it.

Nothing here waits for the device before all images are through, so that a pass over them can be
captured as a CUDA graph.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers import dynamic
from trainers.config import TrialConfig
from trainers.costs import costs
from trainers.hits import Hits, packed
from trainers.losses import mix_entropy
from trainers.reports import ExitPoint
from trainers.teachers import Teachers


class Tally:
    """What one pass over n images counts.

    Attributes:
        top1, top5: (M, n) bool, whether an exit is right, or has the label among its first five.
        sure: (M, n), the largest value of each softmax.
        taught: (N,) images that each teacher has right.
        learned: (M,) images that have right what an exit learns from.
        mix: (N, M), sum over images; entropy: (N,), likewise, nats.
    """

    def __init__(self, exits: int, teachers: int, images: int, device: torch.device) -> None:
        self.top1 = torch.zeros(exits, images, dtype=torch.bool, device=device)
        self.top5 = torch.zeros_like(self.top1)
        self.sure = torch.zeros(exits, images, device=device)
        self.taught = torch.zeros(teachers, device=device)
        self.learned = torch.zeros(exits, device=device)
        self.mix = torch.zeros(teachers, exits, device=device)
        self.entropy = torch.zeros(teachers, device=device)

    def clear(self) -> None:
        """Back to nothing counted; what is kept of each image is written over by the next pass."""
        for counted in (self.taught, self.learned, self.mix, self.entropy):
            counted.zero_()

    def exits(self, logits: Tensor, labels: Tensor, places: Tensor) -> None:
        """Counts the exits of a batch.

        Args:
            logits: z (M, B, K). labels: (B,). places: (B,), of the images among the n.
        """
        hits = logits.topk(min(5, logits.shape[-1]), dim=-1).indices == labels[:, None]
        self.top1.index_copy_(1, places, hits[..., 0])
        self.top5.index_copy_(1, places, hits.any(dim=-1))
        self.sure.index_copy_(1, places, logits.softmax(dim=-1).amax(dim=-1))

    def teachers(
        self,
        features: Tensor,
        logits: Tensor,
        labels: Tensor,
        teachers: Teachers,
        temperature: float | Tensor,
    ) -> None:
        """Counts the teachers of a batch, if there are any.

        Args:
            features: F (M, B, C). logits: z (M, B, K). labels: (B,).
            teachers: Of the scheme.
            temperature: T, which softens what exits learn from.
        """
        if not teachers.number:
            return
        made, mix = teachers(features, logits)
        self.taught += (made.argmax(dim=-1) == labels).sum(dim=1)
        pull = torch.einsum("mn,nbk->mbk", teachers.w, (made / temperature).softmax(dim=-1))
        self.learned += (pull.argmax(dim=-1) == labels).sum(dim=1)
        self.mix += mix.sum(dim=0)
        self.entropy += mix_entropy(mix) * len(labels)

    def summary(
        self,
        config: TrialConfig,
        labels: Tensor,
        *,
        held: Tensor | None = None,
        cross_fit: bool = False,
        rows: NDArray[np.int64] | None = None,
    ) -> dict[str, Any]:
        """The fields of an `EpochReport` that come from scoring.

        Args:
            config: For the FLOPs of its exits.
            labels: (n,) of all images.
            held: (M, n') `sure` of held-out images, to set the thresholds of dynamic inference on.
            cross_fit: The images are held-out ones: each half gets its thresholds from the other.
            rows: (n,) which of the stored images they are; then each image's `hits` are kept.
        """
        n = len(labels)
        first, five, sure = (part.cpu().numpy() for part in (self.top1, self.top5, self.sure))
        points = tuple(
            ExitPoint(
                exit=cost.exit,
                flops=cost.flops,
                flops_cascade=cost.flops_cascade,
                accuracy=int(right) / n,
                top5=int(near) / n,
            )
            for cost, right, near in zip(
                costs(config), np.sum(first, axis=1), np.sum(five, axis=1), strict=True
            )
        )
        flops = [point.flops_cascade for point in points]
        budget: tuple[Any, ...] = ()
        if cross_fit:
            truth = labels.cpu().numpy()
            budget = dynamic.points(dynamic.cross_fitted(sure, first, five, truth, flops))
        elif held is not None:
            held_sure = held.cpu().numpy()
            budget = dynamic.points(dynamic.calibrated(held_sure, sure, first, five, flops))
        number = len(self.taught)
        return {
            "exits": points,
            "teachers": tuple((self.taught / n).tolist()),
            "lessons": tuple((self.learned / n).tolist()) if number else (),
            "mix": tuple(tuple(row) for row in (self.mix / n).tolist()),
            "mix_entropy": tuple((self.entropy / n).tolist()),
            "budget": budget,
            "hits": "" if rows is None else packed(Hits(rows, first)),
        }
