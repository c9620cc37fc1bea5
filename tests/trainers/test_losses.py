"""The one loss against loops written from the paper's equations, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainers.config import TrialConfig
from trainers.losses import loss, mix_entropy, pairwise_kl, ramp_factor, temperature_at
from trainers.schemes import SCHEMES, matched_kd_weight
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
    if scheme in ("byot", "dbt"):
        return [z[-1]]
    if scheme == "dks":
        return [z[i] for i in range(M)]
    if scheme == "eed":
        return [sum(z[i] for i in range(M)) / M]
    if scheme in ("mate", "mate_primary", "okddip"):
        mixer = teachers.mixer
        mixer, peers = (mixer.attention, M - 1) if scheme == "okddip" else (mixer, M)
        made = []
        for j in range(peers):
            rows = []
            for b in range(B):
                q = mixer.query.weight @ features[j, b]
                scores = [
                    mixer.scale * (q @ (mixer.key.weight @ features[i, b])) for i in range(peers)
                ]
                total = sum(s.exp() for s in scores)
                rows.append(sum(scores[i].exp() / total * z[i, b] for i in range(peers)))
            made.append(torch.stack(rows))
        if scheme == "okddip":  # the deepest exit learns from the peers' mean
            made.append(sum(z[i] for i in range(peers)) / peers)
        return made
    if scheme == "mate_fixed":
        a = teachers_alpha(teachers)
        return [sum((1 + a[j] * (i == j)) / (M + a[j]) * z[i] for i in range(M)) for j in range(M)]
    mixer = teachers.mixer  # one, mate_gate
    if mixer.own:  # each gate sees its own exit alone
        return gates_loop(features, z, mixer)
    joined = torch.stack([features[:, b].reshape(-1) for b in range(B)])
    mix = mixer(features)
    assert torch.allclose(mix.sum(-1), torch.ones(B, teachers.number))
    assert joined.shape == (B, M * C)
    return [
        torch.stack([sum(mix[b, j, i] * z[i, b] for i in range(M)) for b in range(B)])
        for j in range(teachers.number)
    ]


def gates_loop(features: Tensor, z: Tensor, mixer: nn.Module) -> list[Tensor]:
    """softmax(ReLU(BN(FC))) of F^j alone, a gate at a time."""
    made = []
    for j in range(M):
        rows = slice(j * M, (j + 1) * M)
        scores = features[j] @ mixer.linear.weight[rows].T + mixer.linear.bias[rows]
        mean, variance = scores.mean(0), scores.var(0, unbiased=False)
        normed = (scores - mean) / (variance + mixer.norm.eps).sqrt()
        weights = (normed * mixer.norm.weight[rows] + mixer.norm.bias[rows]).relu().softmax(-1)
        made.append(sum(weights[:, i, None] * z[i] for i in range(M)))
    return made


def teachers_alpha(teachers: Teachers) -> list[float]:
    return [float(teachers.v[j, j]) - 1 for j in range(M)]


def who_learns(
    scheme: str, alpha: list[float], teachers_side: bool = False
) -> list[tuple[int, int, float]]:
    """(exit, teacher, weight) of every KL term of a scheme, Eq. 6's or Eq. 7's."""
    if scheme == "branchynet":
        return []
    if scheme in ("byot", "dbt"):
        return [(i, 0, 1.0) for i in range(M - 1)]
    if scheme == "okddip":
        return [(i, i, 1.0) for i in range(M)]
    if scheme == "mate_primary" and not teachers_side:  # Table 6
        return [(i, i, 1.0 + alpha[i]) for i in range(M)]
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
    {"exit_weights": (2.0, 0.5, 0.0, 1.0)},
    {"gate_input": "own"},
    {"attached": True},
    {"attached": True, "alpha": (30.0, 5.0, 10.0, 10.0), "alpha_teacher": 1.5},
]


@pytest.mark.parametrize("settings_", SETTINGS, ids=str)
@pytest.mark.parametrize("scheme", MULTI_EXIT)
def test_values_and_every_gradient_equal_the_equations(scheme, settings_):
    config = TrialConfig(scheme=scheme, **settings_)
    features, logits, labels, teachers = case(config)
    parts = loss(features, logits, labels, teachers, config)
    learned = list(teachers.parameters())
    parts.total.backward()
    of_mix = [features] if config.attached and learned else []
    got = [logits.grad.clone()] + [p.grad.clone() for p in learned + of_mix]
    assert of_mix or features.grad is None, "features enter the weight network detached"

    teachers.zero_grad()
    t, reverse = config.temperature, config.kl == "reverse"
    t = 1.0 if scheme == "dbt" else t  # where its schedule starts
    factor = config.kd_weight * (t * t if config.t_squared else 1)
    z = logits.detach().clone().requires_grad_()
    fixed = z.detach()
    f = features.detach().clone().requires_grad_()
    made = teachers_loop(scheme, f, z if config.attached else fixed, teachers)
    frozen = [teacher.detach() for teacher in made]
    u = config.exit_weights or (1.0,) * M
    cross = sum(u[i] * ce_loop(z[i], labels) for i in range(M))
    student_side = cross  # Eq. 6, summed over the exits
    for i, j, weight in who_learns(scheme, config.alpha_per_exit()):
        student_side = student_side + factor * weight * kl_loop(z[i], frozen[j], t, reverse)
    expected = list(torch.autograd.grad(student_side, [z]))
    value = student_side.detach()
    if learned or (config.attached and made):
        teacher_side = torch.zeros(())  # Eq. 7, summed over the teachers
        for i, j, weight in who_learns(scheme, config.alpha_teacher_per_exit(), True):
            teacher_side = teacher_side + factor * weight * kl_loop(fixed[i], made[j], t, reverse)
        if scheme == "one":
            labelled = ce_loop(made[0], labels)
            teacher_side, value = teacher_side + labelled, value + labelled.detach()
        if config.attached:  # the exits, too, learn through what they taught
            through = torch.autograd.grad(teacher_side, z, retain_graph=True)[0]
            expected[0] = expected[0] + through
        more = learned + ([f] if of_mix else [])
        expected += torch.autograd.grad(teacher_side, more) if more else ()

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


def test_dbt_grows_its_temperature_while_the_teacher_is_sure():
    teachers = Teachers(TrialConfig(scheme="dbt"), C)
    sure = torch.zeros(M, B, K)
    sure[-1, :, 0] = 5.0
    assert teachers.temperature == 1.0
    expected = 1.0
    for _ in range(60):  # by the sentence: times 1.05 while the mean largest probability > 0.5
        p = torch.tensor([float(max(sigma(sure[-1, b] / expected))) for b in range(B)]).mean()
        expected *= 1.05 if p > 0.5 else 1.0
        teachers.anneal(torch.zeros(M, B, C), sure)
    assert float(teachers.temperature) == pytest.approx(expected, rel=1e-6)
    assert 1.5 < expected < 1.05**60, "it has come to its end"
    assert "temperature" in teachers.state_dict(), "a run goes on with the T that it had"


def test_only_dbt_has_a_temperature_of_its_own():
    for name in MULTI_EXIT:
        teachers = Teachers(TrialConfig(scheme=name), C)
        assert (teachers.temperature is not None) == SCHEMES[name].anneals == (name == "dbt")
        before = teachers.state_dict().keys()
        teachers.anneal(torch.zeros(M, B, C), torch.zeros(M, B, K))
        assert teachers.state_dict().keys() == before


@pytest.mark.parametrize("scheme", MULTI_EXIT)
def test_settings_that_a_scheme_does_not_read_change_nothing(scheme):
    row = SCHEMES[scheme]
    unread = {"alpha": 7.0, "temperature": 9.0, "kd_weight": 0.1, "attached": True,
              "mix_width": 0.5, "gate_input": "own", "alpha_teacher": 5.0}  # fmt: skip
    if row.alpha:
        del unread["alpha"]
        del unread["alpha_teacher"]  # mate_fixed's mix is that of the teachers' own alpha
    if row.teaches:
        del unread["kd_weight"], unread["attached"]
        if not row.anneals:
            del unread["temperature"]
    if row.mix in ("attention", "peers"):
        del unread["mix_width"]
    if row.mix == "gates":
        del unread["gate_input"]
    totals = []
    for config in (TrialConfig(scheme=scheme), TrialConfig(scheme=scheme, **unread)):
        features, logits, labels, teachers = case(config)
        total = loss(features, logits, labels, teachers, config).total
        totals.append([total.detach(), torch.autograd.grad(total, logits)[0]])
    for one, other in zip(*totals, strict=True):
        assert torch.equal(one, other)


def test_t_changes_by_equal_parts_of_the_run():
    config = TrialConfig(epochs=7, temperatures=(1.0, 2.0, 4.0))
    assert [temperature_at(config, e) for e in range(7)] == [1, 1, 1, 2, 2, 4, 4]
    assert [temperature_at(TrialConfig(epochs=2), e) for e in range(2)] == [3, 3]
    features, logits, labels, teachers = case(config)
    at = loss(features, logits, labels, teachers, config, temperature=2.0).total
    assert torch.equal(at, loss(features, logits, labels, teachers,
                                TrialConfig(temperature=2.0)).total)  # fmt: skip


def test_the_matched_strength_is_that_of_the_gradients():
    assert matched_kd_weight(0.0, 4) == 4.0
    assert matched_kd_weight(3.0, 4) == pytest.approx(5.714, abs=1e-3)
    assert matched_kd_weight(1e9, 4) == pytest.approx(8.0)
