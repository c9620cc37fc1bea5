"""The teachers: the table of schemes as tensors, and the weight networks that learn a mix."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers import own
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.schemes import Matrix, scheme_named

SURE, WARMER = 0.5, 1.05  # DBT's own code: T grows by 1.05 while the mean max-probability is above


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


class Peers(Attention):
    """OKDDip's teachers (Chen et al. 2020): attention among the peers, which are all exits but the
    last; teacher M, the last exit's, is the peers' mean.

    Its own code has `mix_scale` 1, `attached`, `t_squared` and a ramp_up of 80 of 300 epochs.
    Detached, the one force on the attention is toward each peer for itself, where its distillation
    vanishes (`Scheme.best`).
    """

    def forward(self, features: Tensor) -> Tensor:
        """(M, B, C) features -> mix (B, M, M); the last exit's column is 0."""
        among = super().forward(features[:-1])
        mean = torch.full_like(among[:, :1], 1 / among.shape[-1])
        return functional.pad(torch.cat((among, mean), dim=1), (0, 1))


class Gates(nn.Module):
    """N gates (Section 4.7.5; Lan et al. 2018): softmax(ReLU(BN(FC))) of exits' features.

    Args:
        exits: M. features: C. teachers: N.
        config: mix_init is read.
        own: Gate j sees F^j alone (then N = M), not the features of all exits.
    """

    def __init__(
        self, exits: int, features: int, teachers: int, config: TrialConfig, own: bool = False
    ) -> None:
        super().__init__()
        self.teachers, self.own = teachers, own
        # M linear layers side by side are one: of M groups of a 1x1 convolution.
        self.linear = (
            nn.Conv1d(exits * features, teachers * exits, 1, groups=exits)
            if own
            else nn.Linear(exits * features, teachers * exits)
        )
        self.norm = nn.BatchNorm1d(teachers * exits)
        self.linear.weight.data.mul_(config.mix_init)

    def forward(self, features: Tensor) -> Tensor:
        """(M, B, C) features -> mix (B, N, M), rows sum to one."""
        exits, images, _ = features.shape
        joined = features.permute(1, 0, 2).reshape(images, -1)
        scores = self.linear(joined[..., None])[..., 0] if self.own else self.linear(joined)
        scores = self.norm(scores).relu()
        mix: Tensor = scores.view(images, self.teachers, exits).softmax(dim=-1)
        return mix


def _own_network(config: TrialConfig, features: int, teachers: int) -> nn.Module:
    """The weight network of a user's scheme, tried on two images' features.

    Raises:
        InputError: It cannot be built, fails, or gives no mix (B, N, M) whose rows sum to one.
    """
    made, exits = scheme_named(config.scheme).mix, config.exits
    assert isinstance(made, type)
    says = f"scheme file {config.scheme!r}: its weight network {made.__name__}"
    if not issubclass(made, nn.Module):
        raise InputError(f"{says} is no torch.nn.Module")
    seen = torch.linspace(-1, 1, exits * 2 * features).view(exits, 2, features)
    try:
        mixer = made(exits, features, teachers, config)
        with torch.no_grad():
            mix = mixer.eval()(seen)
    except Exception as error:  # whatever the user's file raises is the user's to read
        raise InputError(f"{says} fails: {own.told(error, config.scheme)}") from error
    shape = (2, teachers, exits)
    got = str(tuple(mix.shape)) if isinstance(mix, Tensor) else type(mix).__name__
    if isinstance(mix, Tensor) and mix.dtype != seen.dtype:
        got += f" of {mix.dtype}"
    if got != str(shape):
        raise InputError(
            f"{says} gives {got} of features ({exits}, 2, {features}), needs a tensor of {shape}, "
            f"(images, teachers, exits), of {seen.dtype}"
        )
    if not torch.allclose(sums := mix.sum(dim=-1), torch.ones(()), atol=1e-3):
        raise InputError(f"{says}: rows of its mix sum to {float(sums.flatten()[0]):g}, expected 1")
    trained: nn.Module = mixer.train()
    return trained


def _tensor(matrix: Matrix) -> Tensor:
    """As floats, whatever numbers a user's are."""
    return torch.tensor(matrix, dtype=torch.get_default_dtype())


def one_expression(config: TrialConfig) -> bool:
    """Whether one un-detached KL gives every gradient: W = V, or nothing of a teacher learns."""
    scheme = scheme_named(config.scheme)
    alike = scheme.symmetric(config.alpha_per_exit(), config.alpha_teacher_per_exit())
    return alike or not (scheme.learned or config.attached)


class Teachers(nn.Module):
    """The teachers of one config.

    Attributes:
        w: W (M, N), how much exit i learns from teacher j (Eq. 6).
        v: V (M, N), how much teacher j learns from exit i (Eq. 7).
        one_expression: As the function of that name.
        labels: c, weight of each teacher's own cross-entropy.
        attached: Whether the exits learn through their teachers too.
        mixer: The weight network, or None where the mix is fixed.
        annealed: DBT's T, part of the saved state; None where T is a setting.
    """

    w: Tensor
    v: Tensor
    fixed: Tensor
    annealed: Tensor | None

    def __init__(self, config: TrialConfig, features: int) -> None:
        super().__init__()
        scheme = scheme_named(config.scheme)
        exits = config.exits
        alpha, alpha_teacher = config.alpha_per_exit(), config.alpha_teacher_per_exit()
        w = _tensor(scheme.weights(alpha))
        v = _tensor(scheme.of_teachers(alpha_teacher))
        self.register_buffer("w", w, persistent=False)
        self.register_buffer("v", v, persistent=False)
        self.attached = config.attached
        self.one_expression = one_expression(config)
        self.labels = scheme.labels
        self.number = w.shape[1]
        self.mixer: nn.Module | None = None
        fixed = torch.zeros(0, exits)
        if scheme.mix == "attention":
            self.mixer = Attention(features, config)
        elif scheme.mix == "peers":
            self.mixer = Peers(features, config)
        elif scheme.mix == "gates":
            of_own = config.gate_input == "own"
            self.mixer = Gates(exits, features, self.number, config, of_own)
        elif scheme.mix == "gate":
            self.mixer = Gates(exits, features, self.number, config)
        elif isinstance(scheme.mix, type):
            self.mixer = _own_network(config, features, self.number)
        elif not isinstance(scheme.mix, str) and self.number:
            fixed = _tensor(scheme.mix(alpha_teacher))
        self.register_buffer("fixed", fixed, persistent=False)
        self.register_buffer("annealed", torch.ones(()) if scheme.anneals else None)
        self.phases = config.temperatures or (config.temperature,)
        self.epochs = config.epochs

    def forward(self, features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher logits (Eq. 5), from detached exits unless the config says `attached`.

        Args:
            features: F (M, B, C). logits: z (M, B, K).

        Returns:
            ẑ (N, B, K), and the mix (B, N, M).
        """
        if not self.attached:
            features, logits = features.detach(), logits.detach()
        if self.mixer is None:
            mix = self.fixed.expand(logits.shape[1], -1, -1)
        else:
            mix = self.mixer(features)
        return torch.einsum("bnm,mbk->nbk", mix, logits), mix

    def temperature(self, epoch: int) -> float | Tensor:
        """T in an epoch, counted from 0: of its part of the run; DBT's as it stands."""
        if self.annealed is not None:
            return self.annealed
        return self.phases[epoch * len(self.phases) // self.epochs]

    @torch.no_grad()
    def anneal(self, logits: Tensor) -> None:
        """DBT's step after a batch: T grows by 1.05 while the deepest exit's largest probability at
        T is above 0.5, mean over the batch (Phuong & Lampert 2019). Nothing for other schemes.

        Args:
            logits: z (M, B, K) of the batch.
        """
        if self.annealed is None:
            return
        sure = (logits[-1] / self.annealed).softmax(dim=-1).amax(dim=-1).mean() > SURE
        self.annealed.mul_(1 + (WARMER - 1) * sure)
