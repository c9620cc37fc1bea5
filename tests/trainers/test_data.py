"""What runs see, and the augmented batches of it."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from trainers import data
from trainers.augment import crop_flip
from trainers.config import TrialConfig
from trainers.data import Images, batches, load, passes
from trainers.folders import describe_folder

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def some_images(n=50, channels=3, side=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (n, channels, side, side), generator=generator)
    return Images(
        pixels.to(torch.uint8),
        torch.arange(n),  # each its own, so that a batch says which images it holds
        classes=tuple(map(str, range(n))),
        mean=(0.4, 0.5, 0.3)[:channels],
        std=(0.2, 0.25, 0.3)[:channels],
    )


def naive_batches(images, batch_size, augmented, shuffled, generator):
    """The same pass, an image and a channel at a time."""
    n, side, stored = len(images.labels), images.side, images.stored.shape[-1]
    pad = side // 8 if side == stored else 0
    reach = stored + 2 * pad - side
    order = torch.randperm(n, generator=generator) if shuffled else torch.arange(n)
    if augmented:
        shifts = torch.randint(reach + 1, (n, 2), generator=generator).tolist()
        mirrors = torch.randint(2, (n,), generator=generator).tolist()
    done = []
    for place, index in enumerate(order.tolist()):
        channels = []
        for channel, (mean, std) in enumerate(zip(images.mean, images.std, strict=True)):
            plane = images.pixels[index, channel].numpy()
            down = right = (stored - side) // 2
            if augmented:
                down, right = shifts[place]
                plane = np.pad(np.fliplr(plane) if mirrors[place] else plane, pad)
            plane = plane[down : down + side, right : right + side]
            channels.append((plane / 255 - mean) / std)
        done.append((torch.tensor(np.stack(channels), dtype=torch.float32), index))
    for start in range(0, n, batch_size):
        part = done[start : start + batch_size]
        yield torch.stack([x for x, _ in part]), images.labels[[index for _, index in part]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize(
    ("channels", "side", "size"),
    [(3, 16, None), (1, 8, 8), (3, 32, None), (3, 4, 4), (1, 1, 1), (3, 13, 13), (3, 16, 14),
     (3, 13, 8), (1, 2, 1)],
)  # fmt: skip
def test_batches_are_those_of_a_loop_over_images(
    channels, side, size, chosen, augmentation, shuffle, device
):
    images = dataclasses.replace(some_images(channels=channels, side=side), size=size)
    if chosen:  # of twice as many stored ones
        stored = torch.cat((images.stored.flip(0), images.stored))
        images = dataclasses.replace(images, stored=stored, rows=torch.arange(50, 100))
    got = list(
        batches(
            images.to(device),
            16,
            augmentation=augmentation,
            shuffle=shuffle,
            generator=torch.Generator().manual_seed(5),
        )
    )
    generator = torch.Generator().manual_seed(5)
    expected = list(naive_batches(images, 16, augmentation == "crop_flip", shuffle, generator))
    assert [len(labels) for _, labels in got] == [16, 16, 16, 2]
    for (x, labels), (naive, naive_labels) in zip(got, expected, strict=True):
        assert x.device.type == labels.device.type == device
        assert x.dtype == torch.float32 and x.is_contiguous() and labels.dtype == torch.int64
        assert_close(x.cpu(), naive, rtol=1e-5, atol=1e-5)
        assert labels.tolist() == naive_labels.tolist()


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_crops_whatever_the_memory_format(form):
    pixels = some_images(n=7).pixels
    shifts = torch.tensor([[0, 4], [4, 0], [2, 2], [1, 3], [4, 4], [0, 0], [2, 1]])
    mirrors = torch.tensor([0, 1, 0, 1, 0, 1, 1])
    framed = pixels.new_zeros(
        2, 9, *pixels.shape[1:-2], 20, 20
    )  # room for more images than there are
    cut = crop_flip(pixels.contiguous(memory_format=form), shifts, mirrors, framed, 16)
    assert cut[2].equal(pixels[2])
    assert cut[0, :, 2:, :14].equal(pixels[0, :, :14, 2:])
    assert cut[0, :, :2].eq(0).all() and cut[0, :, :, 14:].eq(0).all()
    assert cut[1, :, :14, 2:].equal(pixels[1].flip(2)[:, 2:, :14])


def test_every_shift_and_both_mirrors_occur():
    images = some_images(n=1, side=8)
    images = dataclasses.replace(
        images, stored=images.stored.repeat(4000, 1, 1, 1), labels=torch.zeros(4000).long()
    )
    generator = torch.Generator().manual_seed(0)
    (x, _), = batches(images, 4000, augmentation="crop_flip", generator=generator)  # fmt: skip
    kinds, counts = x.unique(dim=0, return_counts=True)
    assert len(kinds) == 3 * 3 * 2
    assert counts.min() > 4000 / 18 * 0.7 and counts.max() < 4000 / 18 * 1.3


def test_a_pass_takes_its_random_numbers_from_the_generator_alone():
    images = some_images()

    def one_pass(seed):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(9)
        made = batches(images, 16, augmentation="crop_flip", shuffle=True, generator=generator)
        return torch.cat([x for x, _ in made])

    assert one_pass(1).equal(one_pass(2))
    assert torch.initial_seed() == 2


def test_a_pass_changes_no_image():
    images = some_images()
    before = images.pixels.clone()
    for x, labels in batches(images, 16, augmentation="crop_flip", shuffle=True):
        x.zero_(), labels.zero_()
    assert images.pixels.equal(before)


def test_normalised_images_have_mean_0_and_deviation_1(class_folders):
    config = TrialConfig(dataset=str(class_folders()), classes=3, image_size=8)
    found = load(config, "final")
    x, _ = next(batches(found.fit, 1000))
    assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    assert_close(x.std(dim=(0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-5)


# Loading


def every(images):
    """The images as a set."""
    return {(label, image.numpy().tobytes()) for label, image in
            zip(images.labels.tolist(), images.pixels, strict=True)}  # fmt: skip


def test_what_each_purpose_sees(class_folders):
    root = class_folders(classes=3, train=10, test=2)
    config = TrialConfig(dataset=str(root), classes=3, image_size=8, validation=0.2)
    search, final, holdout = (load(config, p) for p in ("search", "final", "final-holdout"))
    assert [len(d.fit) for d in (search, final, holdout)] == [24, 30, 24]
    assert [len(d.score) for d in (search, final, holdout)] == [6, 6, 6]
    assert [d.split for d in (search, final, holdout)] == ["validation", "test", "test"]
    assert every(final.fit) == every(search.fit) | every(search.score)
    assert every(holdout.fit) == every(search.fit)
    assert every(final.score) == every(holdout.score)
    assert not every(search.fit) & every(search.score)
    assert not every(final.fit) & every(final.score)
    for found in (search, final, holdout):
        for images in (found.fit, found.score):
            assert images.pixels.dtype == torch.uint8 and images.labels.dtype == torch.int64
            assert images.classes == ("class000", "class001", "class002")
            assert (images.mean, images.std) == (search.fit.mean, search.fit.std)


def test_an_experiment_trains_on_all_images_and_is_scored_on_test(class_folders):
    tree = class_folders(classes=3, train=5, test=2)
    config = TrialConfig(dataset=str(tree), classes=3, image_size=8, backbone="cnn4")
    seen = load(config, "reproduce")
    assert seen.split == "test" and len(seen.fit) == 15 and len(seen.score) == 6
    few = load(config.with_(limit_train=6), "reproduce")
    assert few.fit.labels.bincount().tolist() == [2, 2, 2]


def test_photos_are_cut_from_larger_ones(class_folders):
    """At random in training, their middle where they are scored; all of them the size asked for."""
    root = class_folders(train=10, side=80)
    config = TrialConfig(
        dataset=str(root), classes=3, resize=224, backbone="resnet18", validation=0.2
    )
    data = load(config)
    assert data.fit.stored.shape == (30, 3, 256, 256) and data.fit.side == 224
    middle, _ = next(passes(data.score, 4))
    assert middle.equal(data.score.read(slice(0, 4))[..., 16:240, 16:240])
    generator = torch.Generator().manual_seed(0)
    cut, _ = next(passes(data.fit, 4, augmentation="crop_flip", generator=generator))
    assert cut.shape == (4, 3, 224, 224)
    assert not cut.equal(data.fit.read(slice(0, 4))[..., 16:240, 16:240])


def test_the_normalisation_is_of_the_training_images(class_folders):
    root = class_folders(train=10)
    config = TrialConfig(dataset=str(root), classes=3, image_size=8)
    whole = load(config, "final").fit
    scaled = whole.pixels.double() / 255
    for changes in ({}, {"limit_train": 5}, {"split_seed": 1}):
        for purpose in ("search", "final"):
            found = load(config.with_(**changes), purpose)
            assert found.score.mean == pytest.approx(scaled.mean(dim=(0, 2, 3)).tolist())
            assert found.fit.std == pytest.approx(
                scaled.std(dim=(0, 2, 3), correction=0).tolist()
            )  # fmt: skip


def test_limit_train(class_folders):
    root = class_folders(classes=3, train=10)
    config = TrialConfig(dataset=str(root), classes=3, image_size=8, validation=0.2)
    limited = config.with_(limit_train=7)
    assert every(load(limited).fit) < every(load(config).fit)
    assert every(load(limited).score) == every(load(config).score)
    assert [len(load(limited, p).fit) for p in ("search", "final", "final-holdout")] == [7, 13, 7]
    assert every(load(limited, "final").fit) == every(load(limited).fit) | every(load(config).score)


def test_digits():
    config = TrialConfig(dataset="digits")
    found = {p: load(config, p) for p in ("search", "final", "final-holdout")}
    assert {len(d.fit) for d in found.values()} == {180}
    assert [len(d.score) for d in found.values()] == [717, 900, 900]
    fit, validation = every(found["search"].fit), every(found["search"].score)
    test = every(found["final"].score)
    assert every(found["final"].fit) == every(found["final-holdout"].fit) == fit
    assert not fit & validation and not fit & test and not validation & test
    assert torch.bincount(found["search"].fit.labels).tolist() == [18] * 10
    other = load(config.with_(validation=0.5))
    assert every(other.fit) == fit and every(other.score) == validation
    fresh = load(config.with_(split_seed=9))
    assert every(fresh.fit) != fit and not every(fresh.fit) & every(fresh.score)
    assert every(fresh.fit) | every(fresh.score) == fit | validation
    assert found["search"].fit.mean == (0.3053,)
    assert len(load(config.with_(limit_train=40), "final").fit) == 40
    x, _ = next(batches(found["search"].fit, 180))
    assert abs(float(x.mean())) < 0.05 and abs(float(x.std()) - 1) < 0.05


def test_images_that_are_mapped_stay_mapped(class_folders):
    """Neither loading nor a batch copies a split: both parts are rows of one mapped array."""
    root = class_folders(train=10)
    found = load(TrialConfig(dataset=str(root), classes=3, image_size=8)).to("cpu")
    assert found.fit.stored.data_ptr() == found.score.stored.data_ptr()
    assert len(found.fit.stored) == 30 and len(found.fit) + len(found.score) == 30
    assert not set(found.fit.rows.tolist()) & set(found.score.rows.tolist())


@pytest.mark.parametrize(("side", "number"), [(8, 500), (32, 500), (64, 125), (224, 32)])
def test_images_of_an_evaluation(side, number):
    images = dataclasses.replace(some_images(2, side=8), size=side)
    assert data.score_batch(images) == number


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
def test_a_device_holds_only_the_chosen_ones(device):
    images = dataclasses.replace(some_images(5), labels=torch.arange(2), rows=torch.tensor([3, 1]))
    moved = images.to(device)
    assert len(moved) == 2 and moved.labels.device.type == device
    if device != "cpu":
        assert len(moved.stored) == 2 and moved.rows is None
    if device == "cuda":
        assert moved.stored.cpu().equal(images.stored[[3, 1]])


@pytest.mark.parametrize("device", DEVICES)
def test_moving(device):
    found = data.Data(some_images(5), some_images(3), "test")
    moved = found.to(device)
    assert moved.fit.pixels.device.type == moved.score.labels.device.type == device
    assert moved.split == "test" and len(moved.fit) == 5 and moved.fit.mean == found.fit.mean
    assert moved.fit.pixels.cpu().equal(found.fit.pixels)


# The real CIFAR-100


@pytest.mark.slow
@pytest.mark.cifar100
def test_the_real_cifar100(cifar100_root):
    config = TrialConfig(dataset="cifar100")
    data.check(config, cifar100_root)
    each = len(list((cifar100_root / "train" / "apple").iterdir()))
    search = load(config, "search", cifar100_root)
    held = max(1, int(each * 0.1 + 0.5))
    assert torch.bincount(search.fit.labels).tolist() == [each - held] * 100
    assert torch.bincount(search.score.labels).tolist() == [held] * 100
    assert search.fit.classes[:2] == ("apple", "aquarium_fish")
    assert search.fit.mean == (0.4914, 0.4822, 0.4465)
    x, labels = next(batches(search.fit, 1000, shuffle=True))
    assert x.shape == (1000, 3, 32, 32) and len(labels.unique()) == 100
    assert 0.8 < float(x.std()) < 1.6 and abs(float(x.mean())) < 0.3
    final = load(config, "final", cifar100_root)
    assert len(final.fit) == each * 100 and len(final.score) % 100 == 0
    assert torch.bincount(final.score.labels).unique().numel() == 1
    few = load(config.with_(limit_train=200), "search", cifar100_root)
    assert torch.bincount(few.fit.labels).tolist() == [2] * 100
    assert describe_folder(cifar100_root) == {"classes": 100, "image_size": 32}
