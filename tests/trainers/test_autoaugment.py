"""AutoAugment and Cutout: each image as torchvision would change it alone."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import AutoAugment, AutoAugmentPolicy, _apply_op

from trainers.augment import augment, draw
from trainers.autoaugment import FILL, autoaugment, cutout
from trainers.autoaugment import draw as draw_policies

POLICY = AutoAugment(AutoAugmentPolicy.CIFAR10)


def images(n: int, side: int = 32, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (n, channels, side, side), dtype=torch.uint8, generator=generator)


def alone(image: torch.Tensor, policy: int, chances, signs) -> torch.Tensor:
    """torchvision's own loop, `AutoAugment.forward`, with given random numbers."""
    space = POLICY._augmentation_space(10, (image.shape[-2], image.shape[-1]))
    for i, (name, p, number) in enumerate(POLICY.policies[policy]):
        if chances[i] <= p:
            values, signed = space[name]
            magnitude = float(values[number].item()) if number is not None else 0.0
            if signed and signs[i] == 0:
                magnitude *= -1.0
            image = _apply_op(image, name, magnitude, InterpolationMode.NEAREST, [FILL] * 3)
    return image


@pytest.mark.parametrize("side", [32, 24])
def test_a_batch_is_changed_as_each_image_alone(side):
    pixels = images(200, side)
    drawn = draw_policies(200, side, torch.Generator().manual_seed(0))
    got = autoaugment(pixels, drawn["policies"], drawn["chances"], drawn["signs"])
    assert got.dtype == torch.uint8 and got.shape == pixels.shape
    for i in range(200):
        policy, chances, signs = (
            drawn[name][i].tolist() for name in ("policies", "chances", "signs")
        )
        assert torch.equal(got[i], alone(pixels[i], policy, chances, signs)), i
    assert torch.equal(pixels, images(200, side)), "the given images are left alone"


def test_every_sub_policy_is_drawn_and_no_other():
    drawn = draw_policies(5000, 32, torch.Generator().manual_seed(0))
    assert set(drawn["policies"].tolist()) == set(range(25)) == set(range(len(POLICY.policies)))


def test_cutout_blackens_a_square_of_half_the_side_that_may_hang_over():
    pixels = torch.full((2, 3, 32, 32), 200, dtype=torch.uint8)
    got = cutout(pixels, torch.tensor([[16, 16], [0, 31]]))
    assert (got[0] == 0).sum() == 3 * 16 * 16
    assert (got[0, :, 8:24, 8:24] == 0).all()
    assert (got[1] == 0).sum() == 3 * 8 * 9
    assert (got[1, :, :8, 23:] == 0).all()


def test_the_pass_depends_on_the_generator_alone_not_on_the_batches():
    pixels = images(12)
    whole = []
    for size in (12, 5):
        drawn = draw("autoaugment", 12, 32, 32, torch.Generator().manual_seed(3))
        parts = [
            augment(
                pixels[i : i + size],
                "autoaugment",
                {name: values[i : i + size] for name, values in drawn.items()},
                32,
            )
            for i in range(0, 12, size)
        ]
        whole.append(torch.cat(parts))
    assert torch.equal(*whole)


def test_what_a_crop_uncovers_is_grey_as_in_byots_code():
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    drawn = draw("autoaugment", 1, 32, 32, torch.Generator().manual_seed(0))
    drawn["shifts"][:] = 0
    drawn["chances"][:] = math.inf  # no operation
    drawn["holes"][:] = 31
    got = augment(pixels, "autoaugment", drawn, 32)
    assert (got[0, :, :4, :20] == FILL).all()


def test_grey_images_are_augmented_too():
    drawn = draw("autoaugment", 64, 8, 8, torch.Generator().manual_seed(0))
    assert augment(images(64, 8, 1), "autoaugment", drawn, 8).shape == (64, 1, 8, 8)
