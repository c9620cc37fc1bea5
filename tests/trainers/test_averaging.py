"""The average of the weights: against a loop by hand, over an interruption, exported."""

import pytest
import torch

from trainers import checkpoints, trained
from trainers.averaging import Average
from trainers.config import TrialConfig
from trainers.data import batches, load
from trainers.loop import train
from trainers.reports import EpochReport
from trainers.run import Run

DIGITS = TrialConfig(dataset="digits", epochs=2, limit_train=160, ema=0.9)


def same(a: EpochReport, b: EpochReport) -> bool:
    """Equal but for the clock."""
    machine = {"seconds": 0.0, "memory": None}
    return a.model_copy(update=machine) == b.model_copy(update=machine)


@pytest.mark.parametrize("scheme", ["mate_gate", "dbt"])
def test_it_is_the_average_of_a_loop_by_hand(scheme):
    run = Run(DIGITS.with_(scheme=scheme))
    parts = {"network": run.network, "teachers": run.teachers}

    def now():
        return {
            f"{part}.{name}": value.double()
            for part, module in parts.items()
            for name, value in module.state_dict().items()
        }

    expected = now()
    for step, (pixels, labels) in enumerate(batches(load(DIGITS).fit, 4)):
        if step == 30:
            break
        run.network.train()
        run.step(pixels, labels)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in now().items():
            if name.endswith(("num_batches_tracked", "annealed")):
                expected[name] = value
            else:
                expected[name] = decay * expected[name] + (1 - decay) * value
    assert run.average is not None
    averaged = run.average.look().state_dict()
    assert averaged.keys() == expected.keys()
    for name, value in averaged.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)
    far = averaged["network.classifiers.0.weight"] - run.network.classifiers[0].weight
    assert far.abs().max() > 1e-4, "the average is not the newest weights"


def test_it_is_scored_and_changes_nothing_of_the_training():
    plain = list(train(DIGITS.with_(ema=0.0)))
    averaged = list(train(DIGITS))
    assert all(report.raw == () for report in plain)
    assert [report.raw for report in averaged] == [
        pytest.approx(report.accuracies, abs=1e-6) for report in plain
    ]
    assert [report.loss for report in averaged] == [report.loss for report in plain]
    assert averaged[-1].accuracies != plain[-1].accuracies
    newest = list(train(DIGITS.with_(ema=1e-12)))  # an average over one step is the network itself
    assert [a.accuracies for a in newest] == [b.accuracies for b in plain]


@pytest.mark.parametrize("scheme", ["mate", "dbt"])
def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, scheme):
    config = DIGITS.with_(scheme=scheme, epochs=3)
    whole = list(train(config, checkpoint=tmp_path / "whole.pt"))
    cut = train(config, checkpoint=tmp_path / "cut.pt")
    next(cut)
    cut.close()
    gone_on = list(train(config, checkpoint=tmp_path / "cut.pt"))
    assert all(same(a, b) for a, b in zip(whole, gone_on, strict=True))
    a, b = (checkpoints.read(tmp_path / f"{n}.pt")["average"] for n in ("whole", "cut"))
    assert float(a["steps"]) == float(b["steps"]) == 3 * 5
    for part in ("network", "teachers"):
        assert all(torch.equal(value, b[part][name]) for name, value in a[part].items())


def test_the_averaged_network_is_what_is_exported(tmp_path):
    data = load(DIGITS)
    *_, last = train(DIGITS, checkpoint=tmp_path / "run.pt")
    trained.save(tmp_path / "run.pt", DIGITS, data.fit, tmp_path)
    loaded = trained.load(tmp_path)
    answers = loaded.answers(data.score)
    right = (answers.probabilities.argmax(axis=-1) == answers.labels).mean(axis=1)
    assert tuple(right) == pytest.approx(last.accuracies, abs=1e-6)
    assert tuple(right) != pytest.approx(last.raw, abs=1e-6)
    assert answers.taught is not None
    taught = (answers.taught == answers.labels).mean(axis=1)
    assert tuple(taught) == pytest.approx(last.teachers, abs=1e-6)


def test_a_step_can_be_part_of_a_cuda_graph():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    live = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2), "b": torch.nn.BatchNorm1d(2)}).cuda()
    plain, captured = Average(live, 0.9), Average(live, 0.9)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        captured.update()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.update()
    plain.update()
    for step in range(20):
        with torch.no_grad():
            live["a"].weight.fill_(step)
        graph.replay()
        plain.update()
    both = zip(plain.look().parameters(), captured.look().parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in both)
