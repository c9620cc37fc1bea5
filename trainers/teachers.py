"""The teachers: the table of schemes as tensors, and the weight networks that learn a mix."""

import math

import torch
from torch import Tensor, nn

from trainers.config import TrialConfig
from trainers.schemes import scheme_named

SURE, GROWTH = 0.5, 1.05  # of DBT's annealed temperature


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


class Peers(nn.Module):
    """OKDDip's teachers (Chen et al. 2020): the exits but the deepest are peers.

    Each peer's teacher is an attention over the peers; the deepest exit's is their plain mean.
    """

    def __init__(self, features: int, config: TrialConfig) -> None:
        super().__init__()
        self.attention = Attention(features, config)

    def forward(self, features: Tensor) -> Tensor:
        """(M, B, C) features -> mix (B, M, M); the last column, the deepest exit's, is zero."""
        exits, images, _ = features.shape
        peers = max(1, exits - 1)
        mix = features.new_zeros(images, exits, exits)
        mix[:, :peers, :peers] = self.attention(features[:peers]).to(mix.dtype)
        mix[:, peers:, :peers] = 1 / peers
        return mix


class Gates(nn.Module):
    """N gates (Section 4.7.5; Lan et al. 2018): softmax(ReLU(BN(FC))) of F.

    A gate sees the features of all exits, or, where every exit has a teacher of its own and
    `gate_input` says so, those of its exit alone.
    """

    def __init__(self, exits: int, features: int, teachers: int, config: TrialConfig) -> None:
        super().__init__()
        self.teachers = teachers
        self.own = config.gate_input == "own" and teachers == exits
        self.linear = nn.Linear((1 if self.own else exits) * features, teachers * exits)
        self.norm = nn.BatchNorm1d(teachers * exits)
        self.linear.weight.data.mul_(config.mix_init)

    def forward(self, features: Tensor) -> Tensor:
        """(M, B, C) features -> mix (B, N, M), rows sum to one."""
        exits, images, _ = features.shape
        if self.own:  # gate j has rows j M to (j + 1) M of the one layer
            weight = self.linear.weight.view(self.teachers, exits, -1)
            bias = self.linear.bias.view(self.teachers, 1, exits)
            fully = torch.baddbmm(bias, features, weight.transpose(1, 2))  # (N, B, M)
            fully = fully.permute(1, 0, 2).reshape(images, -1)
        else:
            fully = self.linear(features.permute(1, 0, 2).reshape(images, -1))
        scores = self.norm(fully).relu()
        mix: Tensor = scores.view(images, self.teachers, exits).softmax(dim=-1)
        return mix


class Teachers(nn.Module):
    """The teachers of one config.

    Attributes:
        w: W (M, N), how much exit i learns from teacher j.
        v: V (M, N), how much teacher j learns from exit i (Eq. 7); W unless α' is given.
        labels: c, weight of each teacher's own cross-entropy.
        attached: Whether exits learn through their teachers: nothing is detached.
        temperature: T so far of a scheme that anneals it (DBT), part of the state; else None.
        mixer: The weight network, or None where the mix is fixed.
    """

    w: Tensor
    v: Tensor
    fixed: Tensor
    temperature: Tensor | None

    def __init__(self, config: TrialConfig, features: int) -> None:
        super().__init__()
        scheme = scheme_named(config.scheme)
        exits = config.exits
        alpha, alpha_teacher = config.alpha_per_exit(), config.alpha_teacher_per_exit()
        w = torch.tensor(scheme.weights(alpha))
        v = torch.tensor((scheme.teacher_weights or scheme.weights)(alpha_teacher))
        self.register_buffer("w", w, persistent=False)
        self.register_buffer("v", v, persistent=False)
        self.one_expression = torch.equal(w, v)
        self.labels = scheme.labels
        self.attached = config.attached
        self.register_buffer("temperature", torch.ones(()) if scheme.anneals else None)
        self.number = w.shape[1]
        self.mixer: nn.Module | None = None
        fixed = torch.zeros(0, exits)
        if scheme.mix == "attention":
            self.mixer = Attention(features, config)
        elif scheme.mix == "peers":
            self.mixer = Peers(features, config)
        elif scheme.mix in ("gate", "gates"):
            self.mixer = Gates(exits, features, self.number, config)
        elif not isinstance(scheme.mix, str) and self.number:
            fixed = torch.tensor(scheme.mix(alpha_teacher))
        self.register_buffer("fixed", fixed, persistent=False)

    def forward(self, features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher logits from exits (Eq. 5), detached but with `attached`.

        Args:
            features: F (M, B, C). logits: z (M, B, K).

        Returns:
            ẑ (N, B, K), and the mix (B, N, M).
        """
        if not self.attached:
            logits, features = logits.detach(), features.detach()
        if self.mixer is None:
            mix = self.fixed.expand(logits.shape[1], -1, -1)
        else:
            mix = self.mixer(features)
        return torch.einsum("bnm,mbk->nbk", mix, logits), mix

    @torch.no_grad()
    def anneal(self, features: Tensor, logits: Tensor) -> None:
        """One batch of DBT's schedule: T grows by 5 % while the teacher is sure at T.

        Phuong & Lampert 2019, Section 3.3, with the constants of their code: sure is a mean largest
        probability above one half. Nothing happens under other schemes.

        Args:
            features: F (M, B, C). logits: z (M, B, K).
        """
        if self.temperature is None:
            return
        taught, _ = self(features, logits)
        sure = (taught / self.temperature).softmax(dim=-1).amax(dim=-1).mean() > SURE
        self.temperature.mul_(torch.where(sure, GROWTH, 1.0))
