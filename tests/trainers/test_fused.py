"""Batch norm with what stands around it: the same function, the same state."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from trainers import fused
from trainers.config import TrialConfig
from trainers.exits import build_network
from trainers.fused import FusedNorm, fuse
from trainers.kernels import compiled


def same(one: torch.Tensor, two: torch.Tensor, rel: float = 1e-5) -> bool:
    return float((one - two).norm()) <= rel * float(two.norm()) + 1e-6


def trained(module: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Output, gradients and buffers of a step, and the output in evaluation mode after it."""
    images = images.clone().requires_grad_()
    made = module(images)
    made.square().sum().backward()
    assert images.grad is not None
    grads = [p.grad for p in module.parameters() if p.grad is not None and p.dim() > 1]
    buffers = [b for name, b in module.named_buffers() if "running" in name]
    return [made.detach(), images.grad, *grads, *buffers, module.eval()(images).detach()]


@pytest.fixture(params=["sequence", "block", "bottleneck"])
def module(request: pytest.FixtureRequest) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, Bottleneck

    torch.manual_seed(0)
    if request.param == "sequence":
        made: nn.Module = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2, 2),
        )  # fmt: skip
    elif request.param == "block":
        made = BasicBlock(8, 8)
    else:
        shortcut = nn.Sequential(nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32))
        made = Bottleneck(8, 8, downsample=shortcut)
    for parameter in made.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return made


def test_a_fused_module_computes_the_same(module):
    plain, images = copy.deepcopy(module), torch.randn(4, 8, 6, 6)
    fuse(module, None)
    assert any(isinstance(norm, FusedNorm) and norm.relu for norm in module.modules())
    assert list(module.state_dict()) == list(plain.state_dict())
    for ours, theirs in zip(trained(module, images), trained(plain, images), strict=True):
        assert same(ours, theirs)


def test_the_bias_before_a_norm_has_no_gradient_and_is_in_the_running_mean(module):
    if not isinstance(module, nn.Sequential):
        return
    fuse(module, None)
    convolution, norm = module[0], module[1]
    images = torch.randn(4, 8, 6, 6)
    module(images).sum().backward()
    assert convolution.bias.grad is None
    values = nn.functional.conv2d(images, convolution.weight, convolution.bias, padding=1)
    assert same(norm.running_mean, 0.1 * values.detach().mean((0, 2, 3)))


@pytest.mark.parametrize("backbone", ["vgg16", "resnet18", "resnext50", "densenet121", "msdnet"])
def test_every_network_keeps_its_state_and_its_function(backbone):
    width = 1.0 if backbone in ("densenet121", "msdnet") else 0.125
    config = TrialConfig(dataset="cifar100", backbone=backbone, width=width)
    plain = build_network(config)
    network = copy.deepcopy(plain)
    fuse(network, None)
    assert list(network.state_dict()) == list(plain.state_dict())
    network.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(network.train()(images), plain.train()(images), strict=True):
            assert same(ours, theirs, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["80", "90"])
def test_the_kernels_compile_for_a_gpu(capability):
    try:
        torch.cuda._utils._get_gpu_rtc_library()
    except OSError:
        pytest.skip("this PyTorch brings no NVRTC")
    assert len(compiled(capability)) > 10_000


def test_nothing_is_pooled_that_is_not_two_by_two():
    pools = (nn.MaxPool2d(3, 2), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, padding=1))
    for pool in (*pools, nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2)):
        module = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), pool)
        plain, images = copy.deepcopy(module), torch.randn(3, 8, 6, 6)
        fuse(module, None)
        assert type(module[3]) is type(pool)
        assert same(module(images).detach(), plain(images).detach())


def test_blocks_that_only_share_torchvisions_names_stay():
    class BasicBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
            self.downsample = None

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.conv1(self.bn1(images).relu()) + images

    block = BasicBlock()
    plain, images = copy.deepcopy(block), torch.randn(3, 8, 6, 6)
    fuse(block, None)
    assert type(block) is BasicBlock and type(block.bn1) is nn.BatchNorm2d
    assert same(block(images).detach(), plain(images).detach())


def test_kernels_that_cannot_be_had_are_tried_once_a_process(monkeypatch):
    tried = []

    def broken(device: torch.device) -> None:
        tried.append(device)
        raise TypeError("another PyTorch")

    monkeypatch.setattr(fused, "kernels", broken)
    device = torch.device("cuda", 7)
    fused.checked.cache_clear()
    with pytest.warns(UserWarning, match="PyTorch's own batch norm is used: another PyTorch"):
        assert fused.checked(device) is None
    assert fused.checked(device) is None and tried == [device]
    fused.checked.cache_clear()


def test_short_memory_says_nothing_of_the_kernels(monkeypatch):
    def short(device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(fused, "kernels", short)
    with pytest.raises(torch.OutOfMemoryError):
        fused.checked(torch.device("cuda", 7))


@pytest.mark.slow
@pytest.mark.parametrize("few", [4096, 10], ids=["in one launch where rows are few", "never"])
def test_the_kernels_compute_what_pytorch_does(kernels, few, monkeypatch):
    monkeypatch.setattr(fused, "FEW_ROWS", few)
    monkeypatch.setattr(fused, "BLOCKS", 6)
    monkeypatch.setattr(FusedNorm, "fast", lambda norm, images: norm.made is not None)
    sizes = ((16, 24, 3, 3), (30, 16, 5, 5), (3, 520, 1, 1), (5, 24, 4, 6))
    monkeypatch.setattr(fused, "SIZES", sizes)
    fused.check(kernels, torch.device("cpu"))


@pytest.mark.slow
def test_the_check_finds_a_wrong_kernel(kernels, monkeypatch):
    monkeypatch.setattr(FusedNorm, "fast", lambda norm, images: norm.made is not None)
    monkeypatch.setattr(fused, "SIZES", ((16, 24, 3, 3),))
    right = kernels["norm_grad_small"]

    def wrong(grid: Any, block: Any, args: list[Any]) -> None:
        right(grid, block, args)
        args[3] *= 1.1  # the gradient of x

    with pytest.raises(RuntimeError, match="wrong on this device"):
        fused.check({**kernels, "norm_grad_small": wrong}, torch.device("cpu"))
