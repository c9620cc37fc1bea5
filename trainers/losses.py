"""The one loss: cross-entropy of every exit, and distillation from every teacher."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config import TrialConfig
from trainers.teachers import Teachers


def pairwise_kl(
    students: Tensor, teachers: Tensor, temperature: float | Tensor, reverse: bool = False
) -> Tensor:
    """KL(teacher j ‖ student i) of every pair, averaged over the batch.

    Args:
        students: (M, B, K) logits of M exits, B images, K classes.
        teachers: (N, B, K) logits.
        temperature: T > 0, softens both sides; a number or a scalar tensor.
        reverse: KL(student i ‖ teacher j) instead.

    Returns:
        (M, N), nats.
    """
    log_p = functional.log_softmax(students / temperature, dim=-1)[:, None]
    log_q = functional.log_softmax(teachers / temperature, dim=-1)[None]
    # p (log p - log q), not the entropy form: that cancels in fp32 when the two are close.
    terms = log_p.exp() * (log_p - log_q) if reverse else log_q.exp() * (log_q - log_p)
    return terms.sum(dim=-1).mean(dim=-1)


class Knobs(NamedTuple):
    """The numbers of the loss that change from epoch to epoch, or from run to run.

    Plain numbers as a rule. A captured CUDA graph reads them from scalar tensors on its device, so
    that one graph serves every epoch and every config of a kind.

    Attributes:
        temperature: T.
        strength: λ times the ramp; without T².
        exit_weights: e (M,), or None for ones.
    """

    temperature: float | Tensor
    strength: float | Tensor
    exit_weights: Tensor | None


def knobs(config: TrialConfig, teachers: Teachers, epoch: int = 0) -> Knobs:
    """Those of an epoch.

    Args:
        config: kd_weight, ramp_up and exit_weights are read.
        teachers: Their T.
        epoch: Counted from 0.
    """
    weights = config.exit_weights
    return Knobs(
        temperature=teachers.temperature(epoch),
        strength=config.kd_weight * ramp_factor(epoch, config.ramp_up),
        exit_weights=None if weights is None else teachers.w.new_tensor(weights),
    )


class Losses(NamedTuple):
    """The loss of one batch and its parts, each a scalar tensor, nats, mean over images.

    The students' sum alone enters `total`'s value where teachers have weights of their own.
    """

    total: Tensor
    cross_entropy: Tensor
    distillation: Tensor


def loss(
    features: Tensor,
    logits: Tensor,
    labels: Tensor,
    teachers: Teachers,
    config: TrialConfig,
    epoch: int = 0,
    given: Knobs | None = None,
) -> Losses:
    """L = Σ_i e_i CE(z_i, y) + λ Σ_ij W_ij KL_T(ẑ_j ‖ z_i) + Σ_j c_j CE(ẑ_j, y)   (Eqs. 2 to 9).

    The exits enter the teachers detached, so that one un-detached KL gives Eq. 6 to the network and
    Eq. 7 to the weight network. Where the teachers' weights V differ from W the sum is taken once
    a side. Where nothing is detached (`attached`) the same sums reach the exits through their
    teachers as well, as in ONE's and OKDDip's own code.

    Args:
        features: F (M, B, C). logits: z (M, B, K). labels: (B,) class indices.
        teachers: The scheme's teachers.
        config: exit_weights e, kd_weight λ, t_squared, kl and ramp_up are read.
        epoch: Counted from 0; decides T and the ramp.
        given: In place of what the epoch and the config's numbers decide.
    """
    temperature, strength, exit_weights = given or knobs(config, teachers, epoch)
    exits, images, classes = logits.shape
    if exit_weights is None:
        cross_entropy = exits * functional.cross_entropy(
            logits.reshape(exits * images, classes), labels.repeat(exits)
        )
    else:
        each = torch.stack([functional.cross_entropy(z, labels) for z in logits])
        cross_entropy = (each * exit_weights).sum()
    if not teachers.number:
        return Losses(cross_entropy, cross_entropy, cross_entropy.new_zeros(()))
    reverse = config.kl == "reverse"
    if config.t_squared:
        strength = strength * temperature**2
    teacher_logits, _ = teachers(features, logits)
    if teachers.one_expression:
        divergences = pairwise_kl(logits, teacher_logits, temperature, reverse)
        distillation = strength * (teachers.w * divergences).sum()
    else:
        to_students = pairwise_kl(logits, teacher_logits.detach(), temperature, reverse)
        to_teachers = pairwise_kl(logits.detach(), teacher_logits, temperature, reverse)
        distillation = strength * (teachers.w * to_students).sum()
        teacher_side = strength * (teachers.v * to_teachers).sum()
        # Adds the gradient of Eq. 7 and nothing to the value that is logged.
        distillation = distillation + (teacher_side - teacher_side.detach())
    total = cross_entropy + distillation
    if teachers.labels:
        number = teachers.number
        total = total + teachers.labels * number * functional.cross_entropy(
            teacher_logits.reshape(number * images, classes), labels.repeat(number)
        )
    return Losses(total, cross_entropy, distillation)


def ramp_factor(epoch: int, ramp_up: int) -> float:
    """exp(-5 (1 - t/R)²) over the first R epochs (ONE's, OKDDip's), 1 after.

    Args:
        epoch: t, epochs completed before this one.
        ramp_up: R, epochs; 0 for none.
    """
    if epoch >= ramp_up:
        return 1.0
    return math.exp(-5 * (1 - epoch / ramp_up) ** 2)


@torch.no_grad()
def mix_entropy(mix: Tensor) -> Tensor:
    """(N,) nats: entropy of each image's mix (B, N, M), averaged over images; ln M is uniform."""
    return -torch.xlogy(mix, mix).sum(dim=-1).mean(dim=0)
