"""The table of backbones, what each gives, and what its width means."""

import pytest
import torch
from torch import nn

from tests.trainers.networks import config
from trainers import catalog
from trainers.backbones import BACKBONES, backbone_named
from trainers.costs import costs
from trainers.stages import scaled

SIZED = [(name, size) for name, e in catalog.BACKBONES.items() for size in e.image_sizes]


def test_the_catalog_and_the_functions_name_the_same():
    assert list(BACKBONES) == list(catalog.BACKBONES)


@pytest.mark.parametrize(("name", "size"), SIZED)
def test_every_stage_gives_the_channels_that_it_says(name, size):
    with torch.device("meta"):
        backbone = backbone_named(name)(1.0, size, 3)
        assert len(backbone.stages) == len(backbone.channels) == catalog.BACKBONES[name].exits
        x = torch.empty(2, 3, size, size)
        for stage, channels in zip(backbone.stages, backbone.channels, strict=True):
            x = stage(x)
            read = x if isinstance(x, torch.Tensor) else x[-1]
            assert read.shape[:2] == (2, channels)


@pytest.mark.parametrize("name", BACKBONES)
def test_any_width_makes_a_network_that_grows_with_it(name):
    """FLOPs go as the square of the width, but for the least channels of a layer."""
    flops = [costs(config(name, width=w))[-1].flops for w in (0.05, 0.25, 0.37, 0.8, 1.0, 1.5)]
    assert flops == sorted(set(flops))
    assert flops[-1] / flops[-2] == pytest.approx(1.5**2, rel=0.2)
    assert flops[1] / flops[-2] < 0.13


def test_width_scales_to_multiples_of_eight():
    assert scaled(64, 1.0) == 64
    assert scaled(64, 0.25) == 16
    assert scaled(16, 0.1) == 8


def test_resnext_keeps_the_width_of_its_groups():
    def grouped(width: float) -> list[tuple[int, int]]:
        backbone = BACKBONES["resnext50"](width, 32, 3)
        found = [m for s in backbone.stages for m in s.modules() if isinstance(m, nn.Conv2d)]
        return [(m.groups, m.out_channels // m.groups) for m in found if m.groups > 1]

    with torch.device("meta"):
        assert {g for g, _ in grouped(1.0)} == {32}
        assert {g for g, _ in grouped(0.25)} == {8}
        for width in (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 2.0):
            assert sorted({d for _, d in grouped(width)}) == [4, 8, 16, 32]


def test_msdnet_has_the_layers_and_scales_of_its_paper():
    with torch.device("meta"):
        backbone = BACKBONES["msdnet"](1.0, 32, 3)
        x, sides = torch.empty(1, 3, 32, 32), []
        for stage in backbone.stages:
            x = stage(x)
            sides.append([scale.shape[-1] for scale in x])
    assert backbone.channels == (88, 136, 104, 200, 208)
    assert sides == [[32, 16, 8], [32, 16, 8], [16, 8], [16, 8], [8]]
