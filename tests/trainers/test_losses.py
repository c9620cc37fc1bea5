"""The one loss against loops written from the paper's equations, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainers.config import TrialConfig
from trainers.losses import loss, mix_entropy, pairwise_kl, ramp_factor
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


def attention_loop(
    asked: list[int], features: Tensor, z: Tensor, teachers: Teachers
) -> list[Tensor]:
    """Eqs. 4 and 5: each of these exits asks all of them."""
    mixer, made = teachers.mixer, []
    for j in asked:
        rows = []
        for b in range(B):
            q = mixer.query.weight @ features[j, b]
            scores = [mixer.scale * (q @ (mixer.key.weight @ features[i, b])) for i in asked]
            total = sum(s.exp() for s in scores)
            shares = [s.exp() / total for s in scores]
            rows.append(sum(share * z[i, b] for share, i in zip(shares, asked, strict=True)))
        made.append(torch.stack(rows))
    return made


def gates_loop(features: Tensor, z: Tensor, teachers: Teachers, own: bool) -> list[Tensor]:
    """Section 4.7.5: softmax(ReLU(BN(FC(F)))), a score at a time; BN by this batch."""
    mixer, made = teachers.mixer, []
    weight = mixer.linear.weight.reshape(teachers.number, M, -1)
    bias = mixer.linear.bias.reshape(teachers.number, M)
    gain, shift = (p.reshape(teachers.number, M) for p in (mixer.norm.weight, mixer.norm.bias))
    for j in range(teachers.number):
        scores = []
        for i in range(M):
            seen = [features[j, b] if own else features[:, b].flatten() for b in range(B)]
            column = torch.stack([weight[j, i] @ x + bias[j, i] for x in seen])
            centred = column - column.mean()
            column = centred / (centred.square().mean() + mixer.norm.eps).sqrt()
            scores.append((gain[j, i] * column + shift[j, i]).relu())
        total = sum(s.exp() for s in scores)
        made.append(sum((scores[i].exp() / total)[:, None] * z[i] for i in range(M)))
    return made


def teachers_loop(config: TrialConfig, features: Tensor, z: Tensor, teachers: Teachers):
    """ẑ of each scheme, from z (M, B, K), by the sentences of Section 3 and Eqs. 4 and 5."""
    match config.scheme:
        case "branchynet":
            return []
        case "byot" | "dbt":
            return [z[-1]]
        case "dks":
            return [z[i] for i in range(M)]
        case "eed":
            return [sum(z[i] for i in range(M)) / M]
        case "mate" | "mate_primary":
            return attention_loop(list(range(M)), features, z, teachers)
        case "okddip":
            peers = list(range(M - 1))
            mean = sum(z[i] for i in peers) / len(peers)
            return [*attention_loop(peers, features, z, teachers), mean]
        case "mate_fixed":
            a = config.alpha_teacher_per_exit()
            return [
                sum((1 + a[j] * (i == j)) / (M + a[j]) * z[i] for i in range(M)) for j in range(M)
            ]
        case "one" | "mate_gate":
            own = config.scheme == "mate_gate" and config.gate_input == "own"
            return gates_loop(features, z, teachers, own)
    raise AssertionError(f"write the teachers of {config.scheme} down here")


def who_learns(scheme: str, alpha: tuple[float, ...]) -> list[tuple[int, int, float]]:
    """(exit, teacher, weight) of every KL term of a scheme, Eq. 6."""
    if scheme == "branchynet":
        return []
    if scheme in ("byot", "dbt"):
        return [(i, 0, 1.0) for i in range(M - 1)]
    if scheme == "dks":
        return [(i, j, 1.0) for i in range(M) for j in range(M) if i != j]
    if scheme in ("eed", "one"):
        return [(i, 0, 1.0) for i in range(M)]
    if scheme == "okddip":
        return [(i, i, 1.0) for i in range(M)]
    if scheme == "mate_primary":
        return [(i, i, 1.0 + alpha[i]) for i in range(M)]
    return [(i, j, 1.0 + (alpha[i] if i == j else 0.0)) for i in range(M) for j in range(M)]


def who_teaches(scheme: str, alpha: tuple[float, ...]) -> list[tuple[int, int, float]]:
    """(exit, teacher, weight) of every KL term that a teacher learns from, Eq. 7."""
    return who_learns("mate" if scheme == "mate_primary" else scheme, alpha)


def case(config: TrialConfig, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Teachers]:
    torch.manual_seed(seed)
    teachers = Teachers(config, C)
    features = torch.randn(M, B, C, requires_grad=True)
    logits = (2 * torch.randn(M, B, K)).requires_grad_()
    return features, logits, torch.randint(K, (B,)), teachers


EPOCH = 12  # of 30: the second of three parts, and on the ramp
DIVERSE = (30.0, 5.0, 10.0, 10.0)
SETTINGS = [
    {},
    {"alpha": 0.0},
    {"alpha": DIVERSE},
    {"alpha": DIVERSE, "alpha_teacher": 1.5},
    {"temperature": 1.7, "t_squared": True, "kd_weight": 0.3},
    {"kl": "reverse"},
    {"temperatures": (1.0, 4.0, 9.0), "t_squared": True},
    {"ramp_up": 20},
    {"exit_weights": (0.1, 2.0, 0.0, 1.5)},
    {"gate_input": "own"},
    {"attached": True, "alpha": DIVERSE},
    {"attached": True, "alpha": DIVERSE, "alpha_teacher": 1.5, "gate_input": "own"},
]


@pytest.mark.parametrize("settings_", SETTINGS, ids=str)
@pytest.mark.parametrize("scheme", MULTI_EXIT)
def test_values_and_every_gradient_equal_the_equations(scheme, settings_):
    config = TrialConfig(scheme=scheme, **settings_)
    features, logits, labels, teachers = case(config)
    t = config.temperature
    if scheme == "dbt":
        t = 1.3
        teachers.annealed.fill_(t)
    elif config.temperatures:
        t = config.temperatures[1]
    parts = loss(features, logits, labels, teachers, config, EPOCH)
    learned = list(teachers.parameters())
    parts.total.backward()
    assert config.attached or features.grad is None, "features enter the weight network detached"
    got = [logits.grad, features.grad, *(p.grad for p in learned)]

    reverse = config.kl == "reverse"
    factor = config.kd_weight * (t * t if config.t_squared else 1)
    if config.ramp_up:
        factor *= math.exp(-5 * (1 - EPOCH / config.ramp_up) ** 2)
    z, f = (x.detach().clone().requires_grad_() for x in (logits, features))
    inputs = (f, z) if config.attached else (f.detach(), z.detach())
    made = teachers_loop(config, *inputs, teachers)
    frozen = [teacher.detach() for teacher in made]
    weights = config.exit_weights or (1.0,) * M
    cross = sum(weights[i] * ce_loop(z[i], labels) for i in range(M))
    total = cross  # Eq. 6, summed over the exits
    for i, j, weight in who_learns(scheme, config.alpha_per_exit()):
        total = total + factor * weight * kl_loop(z[i], frozen[j], t, reverse)
    value = total.detach()
    for i, j, weight in who_teaches(scheme, config.alpha_teacher_per_exit()):
        # Eq. 7, summed over the teachers, whose exits stand still
        total = total + factor * weight * kl_loop(z[i].detach(), made[j], t, reverse)
    if scheme == "one":
        labelled = ce_loop(made[0], labels)
        total, value = total + labelled, value + labelled.detach()
    expected = torch.autograd.grad(total, [z, f, *learned], allow_unused=True)

    assert torch.allclose(parts.total.detach(), value, rtol=1e-10)
    assert torch.allclose(parts.cross_entropy.detach(), cross.detach(), rtol=1e-10)
    for ours, loops in zip(got, expected, strict=True):
        if ours is None or loops is None:
            assert ours is None and (loops is None or not loops.any())
        else:
            assert torch.allclose(ours, loops, rtol=1e-8, atol=1e-12)


def test_dbt_is_its_own_codes_loss_and_its_temperature_grows_while_the_teacher_is_sure():
    """mary-phuong/multiexit-distillation, with T² and our weights: (T²) Σ_i −q · log p_i; after the
    batch T grows by 1.05 if the mean largest q at T is above one half."""
    config = TrialConfig(scheme="dbt", t_squared=True)
    teachers = Teachers(config, C)
    torch.manual_seed(0)
    t, seen = 1.0, []
    for step in range(40):
        z = (10 if step < 30 else 0.1) * torch.randn(M, B, K)
        ours, theirs = (z.clone().requires_grad_() for _ in range(2))
        labels = torch.randint(K, (B,))
        loss(torch.zeros(M, B, C), ours, labels, teachers, config).total.backward()
        prob_t = torch.softmax(theirs[-1].detach() / t, dim=1)
        value = nn.functional.cross_entropy(theirs[-1], labels)
        for logits in theirs[:-1]:
            logprob_s = torch.log_softmax(logits / t, dim=1)
            value = value + nn.functional.cross_entropy(logits, labels)
            value = value + t**2 * -(prob_t * logprob_s).sum(dim=1).mean()
        value.backward()
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)
        if prob_t.max(dim=1)[0].mean() > 0.5:
            t *= 1.05
        teachers.anneal(ours)
        assert float(teachers.temperature(step % config.epochs)) == pytest.approx(t)
        seen.append(t)
    assert seen[0] == 1.05 and seen[-1] == seen[30] > 2, "it stands still while the teacher is not"
    assert "annealed" in teachers.state_dict()


def own_kl(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    """KL_Loss of DefangChen/OKDDip, its 1e-7 left out: neither side is detached there."""
    p, q = torch.log_softmax(student / t, dim=1), torch.softmax(teacher / t, dim=1)
    return t * t * nn.functional.kl_div(p, q, reduction="batchmean")


@pytest.mark.parametrize("scheme", ["one", "okddip"])
def test_attached_is_the_methods_own_code(scheme):
    """train_one.py and train_GL.py of DefangChen/OKDDip: nothing detached, T², a ramp-up."""
    config = TrialConfig(scheme=scheme, attached=True, t_squared=True, ramp_up=20, mix_scale=1.0)
    features, logits, labels, teachers = case(config)
    learned = list(teachers.parameters())
    loss(features, logits, labels, teachers, config, EPOCH).total.backward()
    got = [logits.grad, features.grad, *(p.grad for p in learned)]

    f, z = (x.detach().clone().requires_grad_() for x in (features, logits))
    ramp = math.exp(-5 * (1 - EPOCH / 20) ** 2)
    hard = sum(nn.functional.cross_entropy(z[i], labels) for i in range(M))
    if scheme == "one":
        (mixed,) = gates_loop(f, z, teachers, own=False)
        hard = hard + nn.functional.cross_entropy(mixed, labels)
        group = sum(own_kl(z[i], mixed, 3.0) for i in range(M))
    else:
        q, k = (
            layer(f[:-1]).transpose(0, 1) for layer in (teachers.mixer.query, teachers.mixer.key)
        )
        attention = torch.softmax(torch.bmm(q, k.permute(0, 2, 1)), dim=-1)
        peers = z[:-1].permute(1, 2, 0)  # images x classes x branches, as there
        mixed = torch.bmm(peers, attention.permute(0, 2, 1))
        group = sum(own_kl(z[i], mixed[:, :, i], 3.0) for i in range(M - 1))
        group = group + own_kl(z[-1], peers.mean(dim=2), 3.0)
    expected = torch.autograd.grad(hard + ramp * group, [z, f, *learned])
    for ours, theirs in zip(got, expected, strict=True):
        assert theirs.abs().max() > 0
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-12)


def test_the_logged_distillation_is_the_students_sum_alone():
    """With an α' of the teachers' own, Eq. 6 is logged and Eq. 7 only felt."""
    for scheme in ("mate", "mate_gate", "mate_primary"):
        values, gradients = [], []
        for alpha_teacher in (0.0, 50.0):
            config = TrialConfig(scheme=scheme, alpha=2.0, alpha_teacher=alpha_teacher)
            features, logits, labels, teachers = case(config)
            parts = loss(features, logits, labels, teachers, config)
            made = teachers_loop(config, features, logits, teachers)
            only = sum(
                weight * kl_loop(logits[i], made[j], 3.0)
                for i, j, weight in who_learns(scheme, (2.0,) * M)
            )
            assert torch.allclose(parts.distillation, only)
            values.append(parts.total.detach())
            gradients.append(torch.autograd.grad(parts.total, list(teachers.parameters()))[0])
        assert torch.equal(*values)
        assert not torch.allclose(*gradients, rtol=0.1)


OTHER = {
    "alpha": 7.0,
    "alpha_teacher": 7.0,
    "temperature": 1.5,
    "temperatures": (2.0, 5.0),
    "kd_weight": 0.3,
    "t_squared": True,
    "kl": "reverse",
    "ramp_up": 20,
    "attached": True,
    "mix_width": 0.5,
    "mix_scale": 1.0,
    "mix_init": 2.0,
    "gate_input": "own",
    "exit_weights": (1.0, 1.0, 1.0, 0.5),
}


@pytest.mark.parametrize("scheme", MULTI_EXIT)
def test_a_scheme_reads_what_it_says_and_nothing_else(scheme):
    def seen(**changes):
        config = TrialConfig(scheme=scheme, **changes)
        features, logits, labels, teachers = case(config)
        if teachers.annealed is not None:
            teachers.annealed.fill_(2.0)  # where T² shows
        total = loss(features, logits, labels, teachers, config, EPOCH).total
        inputs = [features, logits, *teachers.parameters()]
        gradients = torch.autograd.grad(total, inputs, allow_unused=True)
        return [total.detach(), *(g for g in gradients if g is not None)]

    plain, reads = seen(), []
    for field, other in OTHER.items():
        found = seen(**{field: other})
        same = len(found) == len(plain) and all(map(torch.equal, found, plain))
        reads += [] if same else [field]
    # mix_lr is the optimizer's: tests/trainers/test_loop.py
    assert set(reads) == set(SCHEMES[scheme].reads) - {"mix_lr"}
    assert ("mix_lr" in SCHEMES[scheme].reads) == SCHEMES[scheme].learned


def test_the_parts_of_a_run_have_their_temperatures_in_turn():
    def parts(epochs, *temperatures):
        teachers = Teachers(TrialConfig(epochs=epochs, temperatures=temperatures), C)
        return [teachers.temperature(epoch) for epoch in range(epochs)]

    assert parts(6, 1, 2, 3) == [1, 1, 2, 2, 3, 3]
    assert parts(4, 5) == [5, 5, 5, 5]
    assert parts(5, 1, 2) == [1, 1, 1, 2, 2]
    assert parts(2, 1, 2, 3) == [1, 2], "more parts than epochs: the last ones are not reached"


@pytest.mark.parametrize("name", MULTI_EXIT)
def test_the_best_mix_is_where_the_teachers_loss_is_smallest(name):
    """No mix of the same exits does better than `best_mix`, by a column of V at a time."""
    scheme, alpha = SCHEMES[name], (1.0, 2.0, 3.0, 4.0)
    torch.manual_seed(0)
    z = torch.randn(M, B, K)
    v = torch.tensor(scheme.of_teachers(alpha))
    best = torch.tensor(scheme.best_mix(alpha)).reshape(-1, M)
    assert best.shape == (v.shape[1], M)

    def eq7(mix):
        return (v * pairwise_kl(z, torch.einsum("nm,mbk->nbk", mix, z), 3.0)).sum(dim=0)

    free = M - 1 if name == "okddip" else v.shape[1]  # the mean of the peers is not learned
    reach = M - 1 if name == "okddip" else M
    for _ in range(20 if v.numel() else 0):
        other = torch.zeros_like(best)
        other[:, :reach] = (2 * torch.randn(len(best), reach)).softmax(dim=-1)
        assert (eq7(best)[:free] <= eq7(other)[:free] + 1e-12).all()


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
    assert [matched_kd_weight(a, 4) for a in (0, 3, 1e9)] == pytest.approx([4, 4 + 12 / 7, 8])
    for alpha in (0.0, 3.0, 30.0):
        strength, gradients = matched_kd_weight(alpha, M), []
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
