"""The teachers: the table of schemes as tensors, and the weight networks that learn a mix."""

import math

import torch
from torch import Tensor, nn

from trainers.config import TrialConfig
from trainers.schemes import scheme_named


class Attention(nn.Module):
    """MATE's weight network (Eq. 4): teacher j asks, exit i answers.

    w_ji = softmax over i of s θ_Q(F^j) · θ_K(F^i); one query and one key layer for all exits. Eq. 4
    has s = 1, with which the scores of a real network saturate at once; see `mix_scale`.
    """

    def __init__(self, features: int, config: TrialConfig) -> None:
        super().__init__()
        width = max(1, round(features * config.mix_width))
        self.query = nn.Linear(features, width, bias=False)
        self.key = nn.Linear(features, width, bias=False)
        self.scale = 1 / math.sqrt(width) if config.mix_scale is None else config.mix_scale
        for layer in (self.query, self.key):
            layer.weight.data.mul_(config.mix_init)

    def forward(self, features: Tensor) -> Tensor:
        """(M, B, C) features -> mix (B, M, M); row j composes teacher j and sums to one."""
        scores = torch.einsum("jbd,ibd->bji", self.query(features), self.key(features))
        mix: Tensor = (self.scale * scores).softmax(dim=-1)
        return mix


class Gates(nn.Module):
    """N gates (Section 4.7.5; Lan et al. 2018): softmax(ReLU(BN(FC))) of all exits' F."""

    def __init__(self, exits: int, features: int, teachers: int, config: TrialConfig) -> None:
        super().__init__()
        self.teachers = teachers
        self.linear = nn.Linear(exits * features, teachers * exits)
        self.norm = nn.BatchNorm1d(teachers * exits)
        self.linear.weight.data.mul_(config.mix_init)

    def forward(self, features: Tensor) -> Tensor:
        """(M, B, C) features -> mix (B, N, M), rows sum to one."""
        exits, images, _ = features.shape
        joined = features.permute(1, 0, 2).reshape(images, -1)
        scores = self.norm(self.linear(joined)).relu()
        mix: Tensor = scores.view(images, self.teachers, exits).softmax(dim=-1)
        return mix


class Teachers(nn.Module):
    """The teachers of one config.

    Attributes:
        w: W (M, N), how much exit i learns from teacher j.
        v: V (M, N), how much teacher j learns from exit i (Eq. 7); W unless α' is given.
        labels: c, weight of each teacher's own cross-entropy.
        mixer: The weight network, or None where the mix is fixed.
    """

    w: Tensor
    v: Tensor
    fixed: Tensor

    def __init__(self, config: TrialConfig, features: int) -> None:
        super().__init__()
        scheme = scheme_named(config.scheme)
        exits = config.exits
        alpha, alpha_teacher = config.alpha_per_exit(), config.alpha_teacher_per_exit()
        w = torch.tensor(scheme.weights(alpha))
        v = torch.tensor(scheme.weights(alpha_teacher))
        self.register_buffer("w", w, persistent=False)
        self.register_buffer("v", v, persistent=False)
        self.one_expression = torch.equal(w, v)
        self.labels = scheme.labels
        self.number = w.shape[1]
        self.mixer: nn.Module | None = None
        fixed = torch.zeros(0, exits)
        if scheme.mix == "attention":
            self.mixer = Attention(features, config)
        elif scheme.mix in ("gate", "gates"):
            self.mixer = Gates(exits, features, self.number, config)
        elif not isinstance(scheme.mix, str) and self.number:
            fixed = torch.tensor(scheme.mix(alpha_teacher))
        self.register_buffer("fixed", fixed, persistent=False)

    def forward(self, features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher logits from detached exits (Eq. 5).

        Args:
            features: F (M, B, C). logits: z (M, B, K).

        Returns:
            ẑ (N, B, K), and the mix (B, N, M).
        """
        logits = logits.detach()
        if self.mixer is None:
            mix = self.fixed.expand(logits.shape[1], -1, -1)
        else:
            mix = self.mixer(features.detach())
        return torch.einsum("bnm,mbk->nbk", mix, logits), mix
