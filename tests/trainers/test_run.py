"""What a run draws, from generators that all threads of a process share."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from trainers import run
from trainers.config import TrialConfig
from trainers.data import load
from trainers.exits import MultiExitNet, build_network
from trainers.run import Draws, Run, fresh

BASE = TrialConfig(epochs=2, limit_train=90, batch_size=8)


def with_dropout(config: TrialConfig) -> MultiExitNet:
    network = build_network(config)
    for place, classifier in enumerate(network.classifiers):
        network.classifiers[place] = torch.nn.Sequential(torch.nn.Dropout(), classifier)
    return network


def test_dropout_is_the_same_beside_other_runs(monkeypatch):
    monkeypatch.setattr(run, "build_network", with_dropout)
    data = load(BASE)

    def losses(seed: int) -> list[float]:
        mine = Run(BASE.with_(seed=seed))
        return [mine.train_epoch(data.fit, epoch) for epoch in range(2)]

    alone = [losses(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(losses, range(4)))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=0)  # threads may sum otherwise


def test_an_epochs_dropout_is_one_sequence_of_its_seed(monkeypatch):
    """What is drawn between its steps, by others, is not missing in it."""
    drawn: list[torch.Tensor] = []

    def step(mine: Run, pixels: torch.Tensor, labels: torch.Tensor, epoch: int) -> torch.Tensor:
        drawn.append(torch.rand(5))
        return pixels.new_zeros(())

    monkeypatch.setattr(Run, "step", step)
    mine, data = Run(BASE), load(BASE)
    state = torch.get_rng_state()
    mine.train_epoch(data.fit, 1)
    assert torch.equal(torch.get_rng_state(), state)
    seed = run.epoch_generator(BASE, 1).initial_seed()
    expected = torch.rand(5 * len(drawn), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.cat(drawn), expected)


def test_first_weights_are_the_seeds_and_leave_a_gpus_generator_alone(monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(BASE.seed)
        expected = build_network(BASE)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeds the GPU"))
    network, _ = fresh(BASE)
    for one, two in zip(network.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, two)


def test_generators_are_put_back_after_an_error():
    state = torch.get_rng_state()
    draws = Draws(3)
    with pytest.raises(ValueError, match="broken"), draws.taken():
        torch.rand(2)
        raise ValueError("broken")
    assert torch.equal(torch.get_rng_state(), state)
    with draws.taken():  # and the next may have them
        torch.rand(2)
