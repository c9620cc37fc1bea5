"""The one loss against loops written from the paper's equations, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainers.config import TrialConfig
from trainers.losses import loss, mix_entropy, pairwise_kl, ramp_factor
from trainers.schemes import SCHEMES
from trainers.teachers import Teachers

M, B, C, K = 4, 3, 16, 4


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


MULTI_EXIT = [name for name, scheme in SCHEMES.items() if scheme.multi_exit]


def sigma(z: Tensor) -> list[float | Tensor]:
    """Eq. 1, one element at a time."""
    total = sum(z[k].exp() for k in range(len(z)))
    return [z[k].exp() / total for k in range(len(z))]


def kl_loop(student: Tensor, teacher: Tensor, t: float, reverse: bool = False) -> Tensor:
    """KL(teacher ‖ student) of softened logits (B, K), the mean over the batch, by loops."""
    total = torch.zeros(())
    for b in range(len(student)):
        p, q = sigma(student[b] / t), sigma(teacher[b] / t)
        if reverse:
            p, q = q, p
        for k in range(len(p)):
            total = total + q[k] * (q[k].log() - p[k].log())
    return total / len(student)


def ce_loop(logits: Tensor, labels: Tensor) -> Tensor:
    terms = [-sigma(logits[b])[int(labels[b])].log() for b in range(len(labels))]
    return sum(terms) / len(terms)


def teachers_loop(scheme: str, features: Tensor, z: Tensor, teachers: Teachers) -> list[Tensor]:
    """ẑ of each scheme, from z (M, B, K), by the sentences of Section 3 and Eqs. 4 and 5."""
    if scheme == "branchynet":
        return []
    if scheme == "byot":
        return [z[-1]]
    if scheme == "dks":
        return [z[i] for i in range(M)]
    if scheme == "eed":
        return [sum(z[i] for i in range(M)) / M]
    if scheme == "mate":
        mixer = teachers.mixer
        made = []
        for j in range(M):
            rows = []
            for b in range(B):
                q = mixer.query.weight @ features[j, b]
                scores = [mixer.scale * (q @ (mixer.key.weight @ features[i, b])) for i in range(M)]
                total = sum(s.exp() for s in scores)
                rows.append(sum(scores[i].exp() / total * z[i, b] for i in range(M)))
            made.append(torch.stack(rows))
        return made
    if scheme == "mate_fixed":
        a = teachers_alpha(teachers)
        return [sum((1 + a[j] * (i == j)) / (M + a[j]) * z[i] for i in range(M)) for j in range(M)]
    mixer = teachers.mixer  # one, mate_gate
    joined = torch.stack([features[:, b].reshape(-1) for b in range(B)])
    mix = mixer(features)
    assert torch.allclose(mix.sum(-1), torch.ones(B, teachers.number))
    assert joined.shape == (B, M * C)
    return [
        torch.stack([sum(mix[b, j, i] * z[i, b] for i in range(M)) for b in range(B)])
        for j in range(teachers.number)
    ]


def teachers_alpha(teachers: Teachers) -> list[float]:
    return [float(teachers.v[j, j]) - 1 for j in range(M)]


def who_learns(scheme: str, alpha: list[float]) -> list[tuple[int, int, float]]:
    """(exit, teacher, weight) of every KL term of a scheme."""
    if scheme == "branchynet":
        return []
    if scheme == "byot":
        return [(i, 0, 1.0) for i in range(M - 1)]
    if scheme == "dks":
        return [(i, j, 1.0) for i in range(M) for j in range(M) if i != j]
    if scheme in ("eed", "one"):
        return [(i, 0, 1.0) for i in range(M)]
    return [(i, j, 1.0 + (alpha[i] if i == j else 0.0)) for i in range(M) for j in range(M)]


def case(config: TrialConfig, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Teachers]:
    torch.manual_seed(seed)
    teachers = Teachers(config, C)
    features = torch.randn(M, B, C, requires_grad=True)
    logits = (2 * torch.randn(M, B, K)).requires_grad_()
    return features, logits, torch.randint(K, (B,)), teachers


SETTINGS = [
    {},
    {"alpha": 0.0},
    {"alpha": (30.0, 5.0, 10.0, 10.0)},
    {"alpha": (30.0, 5.0, 10.0, 10.0), "alpha_teacher": 1.5},
    {"temperature": 1.7, "t_squared": True, "kd_weight": 0.3},
    {"kl": "reverse"},
]


@pytest.mark.parametrize("settings_", SETTINGS, ids=str)
@pytest.mark.parametrize("scheme", MULTI_EXIT)
def test_values_and_every_gradient_equal_the_equations(scheme, settings_):
    config = TrialConfig(scheme=scheme, **settings_)
    features, logits, labels, teachers = case(config)
    parts = loss(features, logits, labels, teachers, config)
    learned = list(teachers.parameters())
    parts.total.backward()
    got = [logits.grad.clone()] + [p.grad.clone() for p in learned]
    assert features.grad is None, "features enter the weight network detached"

    teachers.zero_grad()
    t, reverse = config.temperature, config.kl == "reverse"
    factor = config.kd_weight * (t * t if config.t_squared else 1)
    z = logits.detach().clone().requires_grad_()
    fixed = z.detach()
    made = teachers_loop(scheme, features.detach(), fixed, teachers)
    frozen = [teacher.detach() for teacher in made]
    cross = sum(ce_loop(z[i], labels) for i in range(M))
    student_side = cross  # Eq. 6, summed over the exits
    for i, j, weight in who_learns(scheme, config.alpha_per_exit()):
        student_side = student_side + factor * weight * kl_loop(z[i], frozen[j], t, reverse)
    student_side.backward()
    expected = [z.grad]
    value = student_side.detach()
    if learned:
        teacher_side = torch.zeros(())  # Eq. 7, summed over the teachers
        for i, j, weight in who_learns(scheme, config.alpha_teacher_per_exit()):
            teacher_side = teacher_side + factor * weight * kl_loop(fixed[i], made[j], t, reverse)
        if scheme == "one":
            labelled = ce_loop(made[0], labels)
            teacher_side, value = teacher_side + labelled, value + labelled.detach()
        expected += torch.autograd.grad(teacher_side, learned)

    assert torch.allclose(parts.total.detach(), value, rtol=1e-10)
    assert torch.allclose(parts.cross_entropy.detach(), cross.detach(), rtol=1e-10)
    assert len(got) == len(expected)
    for ours, loops in zip(got, expected, strict=True):
        assert torch.allclose(ours, loops, rtol=1e-8, atol=1e-12)


def test_the_deepest_exit_of_byot_gets_no_distillation_gradient():
    config = TrialConfig(scheme="byot")
    features, logits, labels, teachers = case(config)
    loss(features, logits, labels, teachers, config).distillation.backward()
    assert logits.grad[-1].abs().max() == 0
    assert logits.grad[0].abs().max() > 0


@given(
    alpha=st.lists(st.floats(0, 50), min_size=M, max_size=M),
    t=st.floats(0.5, 10),
    seed=st.integers(0, 100),
)
@settings(max_examples=25, deadline=None)
def test_mate_fixed_is_the_minimiser_of_the_teachers_loss(alpha, t, seed):
    """Eq. 7's best mix is V_ij / Σ_i V_ij for every sample and T, when exits differ by no more
    than the mix can express: no other mix of the same log-probabilities is better."""
    torch.manual_seed(seed)
    z = torch.randn(M, 1, K)
    config = TrialConfig(scheme="mate_fixed", alpha=tuple(alpha), temperature=t)
    teachers = Teachers(config, C)
    best = teachers.fixed

    def eq7(mix: Tensor) -> Tensor:
        made = torch.einsum("nm,mbk->nbk", mix, z)
        return (teachers.v * pairwise_kl(z, made, t)).sum(dim=0)  # (N,), a loss per teacher

    free = best.clone().log().requires_grad_()
    gradient = torch.autograd.grad(eq7(free.softmax(dim=-1)).sum(), free)[0]
    scale = 1 + teachers.v.sum()
    assert gradient.abs().max() / scale < 1e-9, "a stationary point of every teacher's loss"
    other = torch.rand(M, M).softmax(dim=-1)
    assert (eq7(best) <= eq7(other) + 1e-9 * scale).all()


def test_at_the_fixed_optimum_mate_is_eed_times_its_strength():
    """λ' = M (1 + α / (M + α)): 4 at α = 0, 5.7 at 3. Exact where the exits are close."""
    torch.manual_seed(0)
    centre = torch.randn(1, B, K)
    z = (centre + 1e-4 * torch.randn(M, B, K)).requires_grad_()
    for alpha, strength in ((0.0, 4.0), (3.0, 4 * (1 + 3 / 7))):
        gradients = []
        for scheme in ("mate_fixed", "eed"):
            config = TrialConfig(scheme=scheme, alpha=alpha)
            teachers = Teachers(config, C)
            features = torch.zeros(M, B, C)
            parts = loss(features, z, torch.zeros(B, dtype=torch.int64), teachers, config)
            gradients.append(torch.autograd.grad(parts.distillation, z)[0])
        mate, eed = gradients
        assert torch.allclose(mate, strength * eed, rtol=1e-2, atol=1e-3 * mate.abs().max().item())


def test_one_without_labels_tends_to_the_uniform_mix():
    """The gate's KL alone is smallest at the uniform mix, which is EED."""
    torch.manual_seed(0)
    z = torch.randn(M, 1, 12)
    free = torch.randn(M, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=0.05)
    for _ in range(500):
        teacher = torch.einsum("m,mbk->bk", free.softmax(dim=0), z)[None]
        value = pairwise_kl(z, teacher, 3.0).sum()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert torch.allclose(free.detach().softmax(dim=0), torch.full((M,), 1 / M), atol=1e-3)


def test_the_value_survives_fp32_where_student_and_teacher_are_close():
    torch.manual_seed(0)
    z = torch.randn(1, 128, 100, dtype=torch.float32)
    close = z + 1e-3 * torch.randn_like(z)
    exact = pairwise_kl(z.double(), close.double(), 3.0)
    assert torch.allclose(pairwise_kl(z, close, 3.0).double(), exact, rtol=0.05)


def test_weight_rows_and_mix_rows_of_every_scheme():
    for name in MULTI_EXIT:
        config = TrialConfig(scheme=name, alpha=(1.0, 2.0, 3.0, 4.0))
        features, logits, _, teachers = case(config)
        assert teachers.w.shape == (M, teachers.number)
        if teachers.number:
            _, mix = teachers(features, logits)
            assert mix.shape == (B, teachers.number, M)
            assert torch.allclose(mix.sum(-1), torch.ones_like(mix.sum(-1)), atol=1e-6)


def test_without_a_scale_the_attention_of_wide_features_saturates_and_with_it_it_does_not():
    torch.manual_seed(0)
    features = torch.rand(M, 64, 512) * 3
    for scale, uniform in ((1.0, False), (None, True)):
        config = TrialConfig(scheme="mate", mix_scale=scale)
        teachers = Teachers(config, 512)
        _, mix = teachers(features, torch.randn(M, 64, K))
        share = (mix_entropy(mix) / math.log(M)).mean()
        assert (share > 0.9) == uniform, f"scale {scale}: entropy {share:.2f} of uniform"


def test_mix_entropy_of_known_mixes():
    one_hot = torch.eye(M).expand(B, M, M)
    assert mix_entropy(one_hot).tolist() == pytest.approx([0.0] * M)
    uniform = torch.full((B, 2, M), 1 / M)
    assert mix_entropy(uniform).tolist() == pytest.approx([math.log(M)] * 2)


def test_ramp_up_grows_to_one():
    values = [ramp_factor(epoch, 10) for epoch in range(12)]
    assert values[0] == pytest.approx(math.exp(-5))
    assert values == sorted(values)
    assert values[10] == values[11] == 1.0
    assert ramp_factor(0, 0) == 1.0


def test_the_weight_network_is_the_only_one_with_parameters():
    for name, scheme in SCHEMES.items():
        parameters = list(Teachers(TrialConfig(scheme=name), C).parameters())
        assert bool(parameters) == scheme.learned, name


def test_gates_have_one_linear_a_teacher():
    teachers = Teachers(TrialConfig(scheme="mate_gate"), C)
    assert isinstance(teachers.mixer.linear, nn.Linear)
    assert teachers.mixer.linear.out_features == M * M
