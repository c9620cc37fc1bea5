"""AutoAugment and Cutout on batches, against torchvision and the original code, image by image."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from trainers.augment import crop_flip
from trainers.autoaugment import ACTIONS, POLICY, SIGNED, autoaugment, cutout, draw
from trainers.config import TrialConfig
from trainers.data import Images, batches
from trainers.loop import train

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
THEIRS = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=128)


def some_pixels(n=12, channels=3, side=32, seed=0):
    """Noise, ramps, and images with few values, so that every operation has something to do."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (n, channels, side, side), generator=generator)
    pixels[1::4] = 60 + pixels[1::4] // 4
    ramp = torch.arange(side * side).view(side, side) * 255 // (side * side - 1)
    pixels[2::4] = ramp
    pixels[3::4] = torch.tensor([0, 85, 170, 255])[pixels[3::4] // 64]
    return pixels.to(torch.uint8)


def by_torchvision(image, action):
    """One operation on one (C, H, W) image, as torchvision's own AutoAugment does it."""
    name, size, sign = action
    magnitudes, signed = THEIRS._AUGMENTATION_SPACE[name]
    listed = magnitudes(10, *image.shape[-2:])
    assert signed == (name in SIGNED)
    amount = 0.0 if listed is None else sign * float(listed[size])
    return THEIRS._apply_image_or_video_transform(
        image, name, amount, interpolation=THEIRS.interpolation, fill=THEIRS._fill
    )


def test_the_policy_is_the_published_one():
    theirs = THEIRS._get_policies(v2.AutoAugmentPolicy.CIFAR10)
    assert tuple(tuple((op, p, m or 0) for op, p, m in steps) for steps in theirs) == POLICY


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("number", range(1, len(ACTIONS)), ids=lambda i: str(ACTIONS[i]))
def test_every_operation_is_torchvisions_pixel_for_pixel(number, device):
    for channels, side in ((3, 32), (1, 8), (3, 13)):
        pixels = some_pixels(channels=channels, side=side)
        actions = torch.tensor([[number, 0]] * len(pixels))
        got = autoaugment(pixels.to(device), actions).cpu()
        expected = torch.stack([by_torchvision(image, ACTIONS[number]) for image in pixels])
        assert got.dtype == torch.uint8
        assert torch.equal(got, expected)
        if (channels, side) == (3, 32):
            assert torch.equal(got, pixels) == (ACTIONS[number][:2] == ("Color", 0))


@pytest.mark.parametrize("device", DEVICES)
def test_a_mixed_batch_is_a_loop_over_its_images_in_both_turns(device):
    pixels = some_pixels(200)
    draws = draw(200, 32, 32, torch.Generator().manual_seed(1))
    before = pixels.clone()
    got = autoaugment(pixels.to(device), draws["actions"]).cpu()
    assert torch.equal(pixels, before)
    for image, turns, ours in zip(pixels, draws["actions"].tolist(), got, strict=True):
        for number in turns:
            if number:
                image = by_torchvision(image, ACTIONS[number])
        assert torch.equal(ours, image)
    assert len(set(draws["actions"].flatten().tolist())) > 30


def test_draws_follow_the_probabilities():
    n = 200_000
    actions = draw(n, 32, 32, torch.Generator().manual_seed(0))["actions"]
    expected = torch.zeros(2, len(ACTIONS))
    number = {action: place for place, action in enumerate(ACTIONS)}
    for steps in POLICY:
        for turn, (name, chance, size) in enumerate(steps):
            signs = (1, -1) if name in SIGNED else (1,)
            for sign in signs:
                expected[turn, number[name, size, sign]] += chance / len(POLICY) / len(signs)
            expected[turn, 0] += (1 - chance) / len(POLICY)
    for turn in range(2):
        share = torch.bincount(actions[:, turn], minlength=len(ACTIONS)) / n
        spread = (expected[turn] * (1 - expected[turn]) / n).sqrt()
        assert ((share - expected[turn]).abs() <= 5 * spread).all(), turn
    assert expected.sum(1).tolist() == pytest.approx([1, 1])


def test_a_step_of_probability_0_is_never_done_and_both_steps_are_of_one_sub_policy():
    generator = torch.Generator().manual_seed(3)
    pairs = {tuple(pair) for pair in draw(100_000, 32, 32, generator)["actions"].tolist()}
    allowed = set()
    for steps in POLICY:
        choices = [
            [0] * (chance < 1)
            + [i for i, a in enumerate(ACTIONS) if a and a[:2] == (name, size) and chance > 0]
            for name, chance, size in steps
        ]
        allowed |= {(a, b) for a in choices[0] for b in choices[1]}
    assert pairs == allowed


def cutout_by_its_own_code(image, row, column, length):
    """uoguelph-mlrg/Cutout, one hole."""
    mask = np.ones(image.shape[-2:])
    h, w = mask.shape
    y1, y2 = np.clip(row - length // 2, 0, h), np.clip(row + length // 2, 0, h)
    x1, x2 = np.clip(column - length // 2, 0, w), np.clip(column + length // 2, 0, w)
    mask[y1:y2, x1:x2] = 0
    return (image.numpy() * mask).astype(np.uint8)


@pytest.mark.parametrize("side", [32, 8, 13, 4])
def test_cutout_is_its_own_codes_square_of_half_the_side(side):
    places = [(i, j) for i in range(side) for j in range(side)]
    pixels = some_pixels(len(places), side=side)
    before = pixels.clone()
    got = cutout(pixels, torch.tensor(places))
    for image, (row, column), ours in zip(pixels, places, got, strict=True):
        assert np.array_equal(ours, cutout_by_its_own_code(image, row, column, side // 2))
    assert torch.equal(pixels, before)


def test_cutouts_centres_are_anywhere():
    centres = draw(20_000, 8, 16, torch.Generator().manual_seed(0))["centres"]
    for axis, side in ((0, 8), (1, 16)):
        counts = torch.bincount(centres[:, axis])
        assert len(counts) == side and counts.min() > 20_000 / side * 0.8


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 8)])
def test_batches_are_crop_mirror_policy_cutout_then_normalised(channels, side, device):
    images = images_of(some_pixels(50, channels, side))
    generator = torch.Generator().manual_seed(5)
    made = batches(images.to(device), 16, augmentation="autoaugment", generator=generator)
    got = torch.cat([x for x, _ in made]).cpu()

    generator = torch.Generator().manual_seed(5)
    pad = side // 8
    shifts = torch.randint(2 * pad + 1, (50, 2), generator=generator).tolist()
    mirrors = torch.randint(2, (50,), generator=generator).tolist()
    draws = draw(50, side, side, generator)
    for k, image in enumerate(images.pixels):
        image = tv.horizontal_flip(image) if mirrors[k] else image
        image = tv.crop(tv.pad(image, [pad], fill=[128.0]), *shifts[k], side, side)
        for number in draws["actions"][k].tolist():
            image = by_torchvision(image, ACTIONS[number]) if number else image
        row, column = draws["centres"][k].tolist()
        image = torch.from_numpy(cutout_by_its_own_code(image, row, column, side // 2))
        expected = tv.normalize(image / 255, images.mean, images.std)
        assert torch.allclose(got[k], expected, atol=1e-5)


def images_of(pixels):
    channels = pixels.shape[1]
    labels = torch.arange(len(pixels))
    names = tuple(map(str, range(len(pixels))))
    return Images(pixels, labels, names, (0.4, 0.5, 0.3)[:channels], (0.2, 0.25, 0.3)[:channels])


def test_a_pass_depends_on_its_generator_alone_and_not_on_the_batches():
    images = images_of(some_pixels(50))

    def one_pass(global_seed, batch_size, seed=9):
        torch.manual_seed(global_seed)
        generator = torch.Generator().manual_seed(seed)
        settings = {"augmentation": "autoaugment", "shuffle": True, "generator": generator}
        made = torch.cat([x for x, _ in batches(images, batch_size, **settings)])
        assert torch.initial_seed() == global_seed
        return made

    assert one_pass(1, 16).equal(one_pass(2, 50))
    assert not one_pass(1, 16).equal(one_pass(1, 16, seed=10))


def test_crops_are_padded_with_what_is_asked_for():
    pixels = some_pixels(2, side=8)
    none, corner = torch.tensor([0, 0]), torch.tensor([[0, 0], [2, 2]])
    for fill in (0, 128):
        framed = pixels.new_full((2, 2, pixels.shape[1], 10, 10), fill)
        cut = crop_flip(pixels, corner, none, framed, 8)
        assert cut[0, :, 0].eq(fill).all() and cut[0, :, :, 0].eq(fill).all()
        assert cut[1, :, -1].eq(fill).all()
        assert cut[0, :, 1:, 1:].equal(pixels[0, :, :-1, :-1])


def test_a_run_is_trained_with_it_and_goes_on_bit_for_bit(tmp_path):
    config = TrialConfig(dataset="digits", augmentation="autoaugment", limit_train=64, epochs=2)
    whole = list(train(config))
    path = tmp_path / "cut.pt"
    cut = train(config, checkpoint=path)
    next(cut)
    cut.close()
    *_, last = train(config, checkpoint=path)
    machine = {"seconds": 0.0, "memory": None}
    assert last.model_copy(update=machine) == whole[-1].model_copy(update=machine)
    (plain,) = train(config.with_(augmentation="crop_flip", epochs=1))
    assert plain.loss != whole[0].loss


def test_without_it_no_torchvision_is_loaded():
    code = "import sys, trainers.augment, trainers.data; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
