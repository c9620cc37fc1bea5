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
        temperature: T > 0, softens both sides.
        reverse: KL(student i ‖ teacher j) instead.

    Returns:
        (M, N), nats.
    """
    log_p = functional.log_softmax(students / temperature, dim=-1)[:, None]
    log_q = functional.log_softmax(teachers / temperature, dim=-1)[None]
    # p (log p - log q), not the entropy form: that cancels in fp32 when the two are close.
    terms = log_p.exp() * (log_p - log_q) if reverse else log_q.exp() * (log_q - log_p)
    return terms.sum(dim=-1).mean(dim=-1)


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
    ramp: float = 1.0,
    temperature: float | Tensor | None = None,
) -> Losses:
    """L = Σ_i u_i CE(z_i, y) + λ Σ_ij W_ij KL_T(ẑ_j ‖ z_i) + Σ_j c_j CE(ẑ_j, y)   (Eqs. 2 to 9).

    The exits enter the teachers detached, so that one un-detached KL gives Eq. 6 to the network and
    Eq. 7 to the weight network. Where the teachers' weights V differ from W (α', Table 6) the sum
    is taken once a side. With `attached` nothing is detached: exits learn through the teachers too.

    Args:
        features: F (M, B, C). logits: z (M, B, K). labels: (B,) class indices.
        teachers: The scheme's teachers.
        config: kd_weight λ, temperature T, t_squared, kl and exit_weights u are read.
        ramp: Factor on λ, from `ramp_up`.
        temperature: T instead of the config's, from `temperature_at`. An annealing scheme has
            one of its own.
    """
    exits, images, classes = logits.shape
    cross_entropy = _cross_entropy(logits, labels, config.exit_weights)
    if not teachers.number:
        return Losses(cross_entropy, cross_entropy, cross_entropy.new_zeros(()))
    reverse = config.kl == "reverse"
    if teachers.temperature is not None:
        temperature = teachers.temperature
    elif temperature is None:
        temperature = config.temperature
    strength = config.kd_weight * ramp * (temperature**2 if config.t_squared else 1.0)
    teacher_logits, _ = teachers(features, logits)
    learning = teachers.mixer is not None or teachers.attached
    if teachers.one_expression or not learning:
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


def _cross_entropy(logits: Tensor, labels: Tensor, weights: tuple[float, ...] | None) -> Tensor:
    """Σ_i u_i CE(z_i, y), nats, mean over images; u_i = 1 where there are no weights (Eq. 2)."""
    exits, images, classes = logits.shape
    flat, repeated = logits.reshape(exits * images, classes), labels.repeat(exits)
    if weights is None:
        return exits * functional.cross_entropy(flat, repeated)
    each = functional.cross_entropy(flat, repeated, reduction="none").view(exits, images)
    return each.mean(dim=1) @ logits.new_tensor(weights)


def temperature_at(config: TrialConfig, epoch: int) -> float:
    """T of an epoch: the config's, or that of the part of the run it lies in.

    Args:
        config: temperature, temperatures and epochs are read.
        epoch: Epochs completed before this one.
    """
    if config.temperatures is None:
        return config.temperature
    part = min(epoch, config.epochs - 1) * len(config.temperatures) // config.epochs
    return config.temperatures[part]


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
