"""A trained network in use."""

import torch
from torch import nn

from trainers import trained
from trainers.config import TrialConfig
from trainers.data import load
from trainers.loop import train


def test_a_network_can_be_trained_on_after_it_was_on_a_device(tmp_path, monkeypatch):
    config = TrialConfig(epochs=1, limit_train=60, width=0.25)
    data = load(config)
    list(train(config, data, checkpoint=tmp_path / "run.pt"))
    trained.save(tmp_path / "run.pt", config, data.fit, tmp_path)
    network = trained.load(tmp_path)

    def moved(module: nn.Module, device: str) -> nn.Module:  # as to a GPU: into other memory
        return module.double().float()

    monkeypatch.setattr(nn.Module, "to", moved)
    network.answers(data.score)
    assert network.teachers is not None
    for part in (network.network, network.teachers):
        assert not any(value.is_inference() for value in part.state_dict().values())
    network.network.train()(torch.rand(4, 1, 8, 8))[1].sum().backward()
