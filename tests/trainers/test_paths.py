"""The fast convolutions against PyTorch's: operators, whole networks, the first step."""

import copy
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from trainers.catalog import BACKBONES
from trainers.config import TrialConfig
from trainers.exits import build_network
from trainers.losses import loss
from trainers.paths import WIDE, FastConv2d, FastPool, use_fast_paths
from trainers.resnets import Projection
from trainers.run import Run
from trainers.teachers import Teachers

QUICK = ("cnn4", "vgg16", "resnet18")
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
SIDE = 12  # pixels up to which the rules differ; larger maps take PyTorch's way in any case


def config_of(backbone: str, **fields: object) -> TrialConfig:
    """A narrow network of a backbone, on images of the size that it takes."""
    entry = BACKBONES[backbone]
    size = min(entry.image_sizes)
    narrow = {} if backbone in ("cnn4", "densenet121", "msdnet") else {"width": 0.25}
    dataset = "digits" if size == 8 else "cifar100"
    return TrialConfig(**{"dataset": dataset, "backbone": backbone, **narrow, **fields})


@lru_cache
def shapes(backbone: str) -> tuple[tuple[nn.Conv2d, tuple[int, ...]], ...]:
    """Every convolution of a backbone with the (C, H, W) that it is given, once each."""
    config = config_of(backbone)
    seen: dict[tuple[object, ...], tuple[nn.Conv2d, tuple[int, ...]]] = {}

    def see(module: nn.Conv2d, given: tuple[Tensor, ...]) -> None:
        key = (repr(module), *given[0].shape[1:])
        seen[key] = (module, tuple(given[0].shape[1:]))

    network = build_network(config).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(see)
    with torch.no_grad():
        network(torch.zeros(1, config.channels, config.image_size, config.image_size))
    return tuple(seen.values())


def passed(module: nn.Module, images: Tensor, mixed: bool) -> list[Tensor]:
    """Output and gradients of one pass in which every output weighs something else."""
    module.zero_grad()
    images = images.detach().clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        made = module(images)
    weights = torch.randn(made.shape, generator=torch.Generator().manual_seed(1))
    (made.float() * weights).sum().backward()
    assert images.grad is not None
    return [
        made.detach(),
        images.grad,
        *(p.grad for p in module.parameters() if p.grad is not None),
    ]


def apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def agrees(module: nn.Conv2d, given: tuple[int, ...], mixed: bool) -> None:
    """In fp32 to 1e-5; in bf16 with the fp32 result, to bf16's rounding."""
    assert type(module) is nn.Conv2d
    torch.manual_seed(0)
    images = torch.randn(4, *given).contiguous(memory_format=torch.channels_last)
    plain = copy.deepcopy(module)
    plain._forward_pre_hooks.clear()
    fast = copy.deepcopy(plain)
    use_fast_paths(nn.ModuleList([fast]))
    assert isinstance(fast, FastConv2d)
    found, wanted = passed(fast, images, mixed), passed(plain, images, False)
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        assert got.shape == want.shape
        assert apart(got, want) < (2e-2 if mixed else 1e-5)


@pytest.mark.parametrize("mixed", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("backbone", EACH)
def test_every_convolution_of_every_backbone_agrees(backbone, mixed):
    for module, given in shapes(backbone):
        if mixed and given[-1] > SIDE:
            continue
        if isinstance(module, Projection):
            continue  # has a way of its own: see test_exits
        agrees(module, given, mixed)


@pytest.mark.parametrize("mixed", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 2), (3, 3), (5, 3), (8, 8)])
def test_any_small_map_agrees(size, stride, mixed):
    for kernel, padding, groups in ((3, 1, 1), (3, 1, 8), (1, 0, 1), (3, 0, 1), (3, 1, 2)):
        if kernel > min(size) + 2 * padding:
            continue
        if mixed and groups == 2:
            continue  # left to oneDNN, whose bf16 is not defined there (NaN on 1x1 with stride 2)
        agrees(nn.Conv2d(8, 8, kernel, stride, padding, groups=groups), (8, *size), mixed)


@pytest.mark.parametrize(("size", "stride"), [((4, 4), 1), ((3, 4), 1), ((8, 8), 2), ((5, 7), 2)])
def test_a_wide_convolution_takes_the_matrix_product_onto_four_pixels(size, stride, monkeypatch):
    module = nn.Conv2d(WIDE, 8, 3, stride, 1)
    with monkeypatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", None)  # oneDNN is not asked
        fast = copy.deepcopy(module)
        use_fast_paths(nn.ModuleList([fast]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fast(torch.zeros(2, WIDE, *size))
    agrees(module, (WIDE, *size), True)


@pytest.mark.parametrize(
    "settings",
    [
        {"dilation": 2, "padding": 2},
        {"padding_mode": "circular", "padding": 1},
        {"padding": "same"},
    ],
)
def test_what_no_rule_fits_is_as_it_was(settings):
    for mixed in (False, True):
        agrees(nn.Conv2d(8, 8, 3, **settings), (8, 4, 4), mixed)


def gradients(network: nn.Module, config: TrialConfig, mixed: bool = False) -> tuple[Tensor, float]:
    """All gradients of one MATE step in one vector, and the loss."""
    torch.manual_seed(2)
    dtype = next(network.parameters()).dtype
    images = torch.rand(16, config.channels, config.image_size, config.image_size).to(dtype)
    labels = torch.randint(config.classes, (16,))
    teachers = Teachers(config, network.features).to(dtype)  # type: ignore[arg-type]
    network.train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        features, logits = network(images.contiguous(memory_format=torch.channels_last))
    if mixed:
        features, logits = features.float(), logits.float()
    value = loss(features, logits, labels, teachers, config).total
    value.backward()  # type: ignore[no-untyped-call]
    found = torch.cat(
        [p.grad.flatten().double() for p in network.parameters() if p.grad is not None]
    )
    return found, float(value.detach())


@pytest.mark.parametrize("backbone", EACH)
def test_a_networks_gradients_are_no_further_from_float64_than_twice_the_plain_ones(backbone):
    config = config_of(backbone)
    torch.manual_seed(3)
    plain = build_network(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    exact, fast = copy.deepcopy(plain).double(), copy.deepcopy(plain)
    use_fast_paths(fast)
    truth, exact_loss = gradients(exact, config)
    ours, our_loss = gradients(fast, config)
    theirs, _ = gradients(plain, config)
    assert apart(ours, truth) <= 2 * max(apart(theirs, truth), 1e-6)
    assert our_loss == pytest.approx(exact_loss, rel=1e-5)


@pytest.mark.parametrize("backbone", EACH)
def test_the_first_steps_bf16_loss_agrees(backbone):
    config = config_of(backbone)
    torch.manual_seed(4)
    plain = build_network(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fast = copy.deepcopy(plain)
    use_fast_paths(fast)
    _, ours = gradients(fast, config, mixed=True)
    _, theirs = gradients(copy.deepcopy(plain), config, mixed=True)
    _, exact = gradients(plain.double(), config)
    # Of networks of 50 layers and more, PyTorch's own bf16 is further off on so few images.
    assert abs(ours - exact) <= max(1e-3 * exact, 2 * abs(theirs - exact))


@pytest.mark.parametrize("backbone", ["vgg16", "resnet18", "resnet50"])
def test_every_gradient_of_a_map_lies_in_memory_as_the_map_does(backbone):
    wide = {} if backbone == "vgg16" else {"width": 1}  # with matrix products of stride 2
    run = Run(config_of(backbone, precision="bf16", **wide))
    seen: list[Tensor] = []

    def watch(module: nn.Module, given: object, made: Tensor) -> None:
        made.register_hook(seen.append)  # type: ignore[no-untyped-call]

    for module in run.network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.MaxPool2d):
            module.register_forward_hook(watch)
    run.network.train()
    run.step(torch.rand(4, 3, 32, 32), torch.arange(4))
    maps = [grad for grad in seen if grad.dim() == 4]
    assert len(maps) > 20
    assert all(grad.is_contiguous(memory_format=torch.channels_last) for grad in maps)


@pytest.mark.parametrize("shape", [(2, 8, 4, 4), (2, 8, 1, 1), (8, 4, 4)])
def test_pooling_agrees(shape):
    plain = nn.AdaptiveAvgPool2d(1)
    fast = copy.deepcopy(plain)
    use_fast_paths(nn.ModuleList([fast]))
    assert type(fast) is FastPool
    images = torch.randn(shape)
    for got, want in zip(passed(fast, images, False), passed(plain, images, False), strict=True):
        assert got.shape == want.shape
        assert apart(got, want) < 1e-6


def test_pooling_to_more_than_a_pixel_is_as_it_was():
    plain = nn.AdaptiveAvgPool2d((2, 1))
    fast = copy.deepcopy(plain)
    use_fast_paths(nn.ModuleList([fast]))
    images = torch.randn(2, 3, 4, 4)
    assert torch.equal(fast(images), plain(images))


def test_a_run_on_a_cpu_takes_them_and_its_state_dict_is_the_same():
    config = config_of("cnn4")
    run = Run(config)
    kinds = {type(m) for m in run.network.modules() if isinstance(m, nn.Conv2d)}
    assert kinds == {FastConv2d}
    plain = build_network(config)
    assert list(plain.state_dict()) == list(run.network.state_dict())
    plain.load_state_dict(run.network.state_dict())
