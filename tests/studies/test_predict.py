"""A trained network on image files: the same answers as a loop over its exits, image by image."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from studies.evaluate import evaluate
from studies.export import write_config
from studies.final import train_finals
from studies.predict import BATCH, predict
from trainers import trained
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.data import load
from trainers.imagefiles import square


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Stripes, upright or lying, of any shape: two classes that a small network tells apart."""
    root, rng = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 10)):
        for label in ("lying", "upright"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                high, wide = rng.integers(20, 50, 2).tolist()
                stripes = (
                    np.indices((high, wide))[int(label == "upright")] * 4 // min(high, wide) % 2
                )
                noisy = 120 * stripes + rng.integers(0, 135, (high, wide))
                Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def run(tree, tmp_path_factory):
    """Trained with its hold-out unseen."""
    folder = tmp_path_factory.mktemp("best")
    config = TrialConfig(
        dataset=str(tree), classes=2, resize=8, epochs=6, batch_size=8, validation=0.5
    )
    write_config(folder / "1.yaml", config, {"study": "stripes"})
    return train_finals(folder / "1.yaml", seeds=1, keep_validation=True).folder


def files_of(tree):
    return [str(path) for path in sorted((tree / "test").rglob("*.png"))]


def test_files_are_read_as_the_data_set_is(run, tree):
    network = trained.load(run / "seed-1")
    stored = load(network.config, "final-holdout").score
    pixels = torch.stack([network.read(file) for file in files_of(tree)])
    assert pixels.equal(stored.pixels)


def test_the_last_exit_answers_where_no_budget_is_given(run, tree):
    files = files_of(tree)
    found = predict(run, files)
    network = trained.load(run / "seed-1")
    probabilities = network.predict(torch.stack([network.read(file) for file in files]))[-1]
    best = probabilities.max(dim=-1)
    assert [image.file for image in found.images] == files
    assert [image.label for image in found.images] == [network.classes[i] for i in best.indices]
    assert [image.probability for image in found.images] == pytest.approx(best.values.tolist())
    assert found.limits is None and found.leaving == (0, 0, 0, len(files))
    assert found.flops == network.exits[-1].flops < network.exits[-1].flops_cascade


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_a_budget_is_kept_on_the_held_out_images(run, tree, share):
    """And every image leaves where a loop over the exits says, at that exit's cost."""
    network, files = trained.load(run / "seed-1"), files_of(tree)
    costs = [cost.flops_cascade for cost in network.exits]
    budget = costs[0] + share * (costs[-1] - costs[0])
    held = load(network.config).score
    limits = network.thresholds(budget)
    on_held = network.stop_early(held.pixels, limits)
    assert on_held.flops <= budget * (1 + 1e-6)
    assert on_held.flops == pytest.approx(np.mean([costs[k] for k in on_held.exits]))
    found = predict(run / "seed-1", files, budget=budget)
    assert found.limits == limits
    again = network.stop_early(held.pixels, torch.tensor(limits).double())
    assert again.exits.equal(on_held.exits), "an array does as well"
    whole = network.predict(torch.stack([network.read(file) for file in files]))
    for i, image in enumerate(found.images):
        sure = (k for k in range(3) if whole[k, i].max() >= limits[k])
        k = next(sure, 3)
        assert (image.exit, image.flops) == (k + 1, costs[k])
        assert image.label == network.classes[whole[k, i].argmax()]
    assert sum(found.leaving) == len(files)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_a_network_that_was_moved_takes_images_that_are_there(run, tree, device):
    network = trained.load(run / "seed-1")
    held = load(network.config).score.pixels
    limits = network.thresholds(network.exits[2].flops_cascade)
    here = network.stop_early(held, limits)
    network.network.to(device)
    there = network.stop_early(held.to(device), limits)
    assert (there.exits.cpu() != here.exits).float().mean() < 0.05  # on a threshold
    assert there.flops == pytest.approx(here.flops, rel=0.05)
    torch.testing.assert_close(
        network.predict(held.to(device)).cpu(), trained.load(run / "seed-1").predict(held),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip


def test_the_middle_of_a_larger_square_is_read(run, tree):
    """As scoring takes it, from images that are kept larger."""
    network = trained.load(run / "seed-1")
    config = network.config.with_(resize=224, backbone="resnet18")
    larger = replace(network, config=config).read(files_of(tree)[0])
    stored = square(Path(files_of(tree)[0]), 256, photo=True)[0]
    assert np.array_equal(larger.numpy(), stored[:, 16:240, 16:240])


def test_the_last_exit_by_itself(run, tree):
    network = trained.load(run / "seed-1")
    pixels = load(network.config).score.pixels
    torch.testing.assert_close(network.last(pixels), network.predict(pixels)[-1])


def test_what_is_kept_of_the_hold_out_is_computed_in_small_batches(tree, tmp_path, monkeypatch):
    """As many images at a time as scoring takes: larger ones would not fit."""
    seen, real = [], trained.build_network

    def watched(config):
        network = real(config)
        network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        return network

    monkeypatch.setattr(trained, "build_network", watched)
    monkeypatch.setattr(trained, "score_batch", lambda images: 7)
    config = TrialConfig(
        dataset=str(tree), classes=2, resize=8, epochs=1, batch_size=8, validation=0.5
    )
    write_config(tmp_path / "1.yaml", config, {"study": "stripes"})
    folder = train_finals(tmp_path / "1.yaml", seeds=1, keep_validation=True).folder
    assert seen == [7, 7, 7, 7, 2]
    kept = trained.load(folder / "seed-1").confidence
    assert kept is not None and kept.shape == (4, 30)


def test_seeds_of_other_images_lie_in_another_folder(tree, tmp_path):
    config = TrialConfig(
        dataset=str(tree), classes=2, resize=8, epochs=1, batch_size=8, validation=0.5
    )
    write_config(tmp_path / "1.yaml", config, {"study": "stripes"})
    first = train_finals(tmp_path / "1.yaml", seeds=1).folder
    assert train_finals(tmp_path / "1.yaml", seeds=2).folder == first
    more = tree / "train" / "lying" / "more.png"
    shutil.copy(tree / "train" / "lying" / "1.png", more)
    try:
        other = train_finals(tmp_path / "1.yaml", seeds=2)
        assert other.folder != first and other.seeds == (1, 2)
    finally:
        more.unlink()


def test_more_images_than_a_batch(run, tree):
    files = (files_of(tree) * 9)[: 2 * BATCH + 3]
    found = predict(run, files).images
    assert [image.file for image in found] == files
    assert found[BATCH].label == predict(run, files[BATCH : BATCH + 1]).images[0].label


def test_what_cannot_be(run, tree, tmp_path):
    network = trained.load(run / "seed-1")
    with pytest.raises(InputError, match="limits needs 4 values, one per exit, got 2"):
        network.stop_early(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), (0.5, 0.5))
    with pytest.raises(InputError, match=r"uint8 of shape \(B, 3, 8, 8\)"):
        network.stop_early(torch.zeros(1, 3, 9, 9, dtype=torch.uint8), (0.5,) * 4)
    with pytest.raises(InputError, match="budget of 1G FLOPs per image cannot be spent"):
        network.thresholds(1e9)
    for limits in ((0.5, float("nan"), 0.5, 0.5), ("a",) * 4, (None,) * 4):
        with pytest.raises(InputError, match="limits needs numbers, inf where no image leaves"):
            network.stop_early(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), limits)
    with pytest.raises(InputError, match="limits needs 4 values, one per exit, got 1"):
        network.stop_early(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 0.5)
    with pytest.raises(InputError, match="holds several runs: name one of them, seed-1"):
        trained.load(run)
    with pytest.raises(InputError, match="has no trained run"):
        predict(tmp_path, files_of(tree))


def test_images_that_cannot_be_used_are_told_and_the_others_answered(run, tree, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"")
    odd = [str(tmp_path / "torn.png"), str(tmp_path / "none.png"), str(tmp_path)]
    one, *_, other = files_of(tree)
    found = predict(run, [odd[0], one, *odd[1:], other])
    assert [image.file for image in found.images] == [one, other]
    assert [image.file for image in found.refused] == odd
    for image, said in zip(found.refused, ("damaged", "No such file", "is a folder"), strict=True):
        assert image.file in image.reason and said in image.reason
    assert predict(run, odd).images == () and predict(run, odd).flops is None


def test_thresholds_lie_between_two_held_out_images(run):
    """So the last bit of a confidence, which a batch's size can change, moves none across."""
    network = trained.load(run / "seed-1")
    costs = [cost.flops_cascade for cost in network.exits]
    finite = 0
    for budget in np.linspace(costs[0], costs[-1], 30):
        for sure, limit in zip(network.confidence, network.thresholds(budget), strict=True):
            if np.isfinite(limit):
                finite += 1
                above, below = sure[sure >= limit].min(), sure[sure < limit].max(initial=0)
                assert below < limit < above and limit == pytest.approx((below + above) / 2)
    assert finite > 30


def test_a_folder_that_changed_later_changes_no_thresholds(run, tree, tmp_path):
    """They come with the weights: nothing of the folder is read."""
    network = trained.load(run / "seed-1")
    tree.rename(tmp_path / "elsewhere")
    try:
        assert trained.load(run / "seed-1").thresholds(100e3) == network.thresholds(100e3)
        assert predict(run, [str(tmp_path / "elsewhere/test/lying/1.png")], 100e3).images
        with pytest.raises(InputError, match="no folder"):
            evaluate(run)
        there = evaluate(run, data_root=tmp_path / "elsewhere")
        assert there.held == network.confidence.shape[1] == 30
    finally:
        (tmp_path / "elsewhere").rename(tree)


def test_images_that_were_taken_as_they_are_are_read_so(tree, tmp_path):
    """A tree of RGB squares ignores how the camera was held, and so does the network's `read`."""
    image = Image.fromarray(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    for split in ("train", "test"):
        for name in ("one", "two"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(4):
                image.save(tmp_path / split / name / f"{number}.png", exif=exif)
    config = TrialConfig(dataset=str(tmp_path), classes=2, image_size=8, epochs=1, batch_size=4)
    write_config(tmp_path / "1.yaml", config, {"study": "held"})
    network = trained.load(next(train_finals(tmp_path / "1.yaml", seeds=1).folder.glob("seed-*")))
    assert network.read(tmp_path / "test/one/0.png").equal(load(config).fit.pixels[0])


def test_thresholds_need_images_that_were_not_trained_on(run, tree, tmp_path):
    config = trained.load(run / "seed-1").config
    write_config(tmp_path / "1.yaml", config.with_(epochs=1), {"study": "stripes"})
    seen = train_finals(tmp_path / "1.yaml", seeds=1).folder
    with pytest.raises(InputError, match="weights hold none: .* --keep-validation"):
        predict(seen, files_of(tree), budget=100e3)
    write_config(tmp_path / "2.yaml", config.with_(epochs=1, scheme="baseline"), {"study": "one"})
    one = train_finals(tmp_path / "2.yaml", seeds=1, keep_validation=True).folder
    cost = trained.load(next(one.glob("seed-*"))).exits[0].flops
    with pytest.raises(InputError, match="one exit has no thresholds"):
        predict(one, files_of(tree), budget=cost)


def test_the_digits_are_no_files(tmp_path, tree):
    config = TrialConfig(epochs=1, limit_train=60)
    write_config(tmp_path / "1.yaml", config, {"study": "tiny"})
    folder = train_finals(tmp_path / "1.yaml", seeds=1).folder
    with pytest.raises(InputError, match="a network for digits takes images of 1 channel"):
        predict(folder, files_of(tree))
