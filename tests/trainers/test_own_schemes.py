"""A user's own teacher scheme: it is computed as the table's are, and checked in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainers import checkpoints, trained
from trainers.captured import CapturedRun, kind_of
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.data import load
from trainers.loop import train
from trainers.own_schemes import MIXES
from trainers.run import Run
from trainers.schemes import SCHEMES, choices, scheme_named
from trainers.teachers import Teachers

HEAD = "from trainers.schemes import Scheme\n"
W = """
def weights(alpha):
    exits = range(len(alpha))
    return [[1 + alpha[i] * (i == j) for j in exits] for i in exits]
"""
MATE = f"""{HEAD}{W}
SCHEME = Scheme("mate once more", mix="attention", weights=weights, alpha=True)
"""
EED = f"""{HEAD}
SCHEME = Scheme(
    "eed once more", lambda a: ((1 / len(a),) * len(a),), weights=lambda a: ((1,),) * len(a)
)
"""
LINEAR = f"""
import torch
from torch import nn

{HEAD}{W}

class Linear(nn.Module):
    def __init__(self, exits, features, teachers, config):
        super().__init__()
        self.scores = nn.Linear(features, teachers)

    def forward(self, features):
        return self.scores(features).permute(1, 2, 0).softmax(dim=-1)


SCHEME = Scheme("a linear weight network", mix=Linear, weights=weights, alpha=True)
"""
SMALL = TrialConfig(epochs=2, limit_train=75)
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file; its path."""

    def written(text: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(text)
        return str(path)

    return written


@pytest.mark.parametrize(("text", "name"), [(MATE, "mate"), (EED, "eed")])
@pytest.mark.parametrize("attached", [False, True])
def test_the_tables_matrices_in_a_file_train_to_the_last_bit_alike(write, text, name, attached):
    own = SMALL.with_(scheme=write(text), attached=attached)
    runs = [list(train(config)) for config in (own, own.with_(scheme=name))]
    for one, two in zip(*runs, strict=True):
        assert (one.loss, one.exits, one.mix) == (two.loss, two.exits, two.mix)


def test_a_weight_network_of_ones_own_learns_and_is_kept(write, tmp_path):
    config = SMALL.with_(scheme=write(LINEAR), alpha=(1.0, 2.0, 3.0, 4.0), mix_lr=5.0)
    assert scheme_named(config.scheme).learned
    path, data = tmp_path / "run.pt", load(config)
    before = Run(config).teachers.state_dict()
    reports = list(train(config, checkpoint=path))
    after = checkpoints.read(path)["teachers"]
    assert set(after) == {"mixer.scores.weight", "mixer.scores.bias"} == set(before)
    assert not torch.equal(after["mixer.scores.weight"], before["mixer.scores.weight"])
    assert (
        len(reports[-1].mix) == 4
        and [sum(row) for row in reports[-1].mix] == [pytest.approx(1, abs=1e-5)] * 4
    )
    trained.save(path, config, data.fit, tmp_path / "kept")
    loaded = trained.load(tmp_path / "kept").teachers
    assert loaded is not None
    assert torch.equal(loaded.state_dict()["mixer.scores.weight"], after["mixer.scores.weight"])


@pytest.mark.parametrize("text", [MATE, EED, LINEAR])
def test_a_captured_run_computes_the_same(write, text):
    config = SMALL.with_(scheme=write(text))
    data = load(config)
    ours, plain = CapturedRun(config, data, "cpu"), Run(config)
    for epoch in range(2):
        assert ours.train_epoch(data.fit, epoch) == pytest.approx(
            plain.train_epoch(data.fit, epoch), rel=1e-4
        )


def test_graphs_are_shared_where_the_file_cannot_tell_the_runs_apart(write):
    """A weight network may have taken any setting into its forward pass; matrices are loaded."""

    def alike(text: str, **changes: object) -> bool:
        config = SMALL.with_(scheme=write(text))
        data = load(config)
        return kind_of(config, data, "cuda") == kind_of(config.with_(**changes), data, "cuda")

    assert alike(MATE, alpha=5.0) and not alike(LINEAR, alpha=5.0)
    assert alike(MATE, seed=5, lr=0.5) and alike(LINEAR, seed=5, lr=0.5)
    config = SMALL.with_(scheme=write(MATE))
    data = load(config)
    before = kind_of(config, data, "cuda")
    write(MATE + "# edited\n")
    assert kind_of(config, data, "cuda") != before


def test_a_checkpoint_of_an_edited_scheme_is_anothers(write, tmp_path):
    config, path = SMALL.with_(scheme=write(MATE)), tmp_path / "run.pt"
    list(train(config, checkpoint=path))
    data = load(config)
    trained.save(path, config, data.fit, tmp_path)
    assert trained.load(tmp_path).config == config
    write(MATE + "# edited\n")
    with pytest.raises(checkpoints.OtherRunError, match="another run: scheme differ"):
        next(train(config, checkpoint=path))
    with pytest.raises(InputError, match="scheme file .* has changed since .* was trained"):
        trained.load(tmp_path)
    with pytest.raises(checkpoints.OtherRunError, match="another run: scheme differ"):
        next(train(config.with_(scheme="mate"), checkpoint=path))


def test_every_weight_network_of_the_table_can_be_named():
    named = {scheme.mix for scheme in SCHEMES.values() if isinstance(scheme.mix, str)}
    assert named == set(MIXES)


def test_spaces_compare_it_under_a_name_that_does_not_move(write):
    assert "own" not in choices("mate") and "baseline" not in choices("mate")
    path = write(EED)
    assert choices(path) == {**choices("mate"), "own": path}


def test_the_readmes_examples_are_schemes(write):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    blocks = [block.partition("```")[0] for block in readme.split("```python\n")[1:]]
    fixed, learned = [block for block in blocks if "SCHEME =" in block]
    config = SMALL.with_(scheme=write(fixed), alpha=(1.0, 2.0, 3.0, 4.0))
    teachers = Teachers(config, features=8)
    assert teachers.w.tolist() == [
        [1, 0, 0, 0, 1], [0, 2, 0, 0, 1], [0, 0, 3, 0, 1], [0, 0, 0, 4, 1],
    ]  # fmt: skip
    assert teachers.fixed.tolist() == [
        [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0.5, 0.5],
    ]  # fmt: skip
    other = "def other_weights(alpha):\n    return [[1] * 5] * 4\n"
    config = config.with_(scheme=write(f"from torch import nn\n{fixed}\n\n{other}\n\n{learned}"))
    assert not Teachers(config, features=8).one_expression
    report, _ = train(config)
    assert [sum(row) for row in report.mix] == [pytest.approx(1, abs=1e-4)] * 5


def row(mix: str = "None", weights: str = "lambda a: [[1.0]] * len(a)", more: str = "") -> str:
    """A file with a scheme of these."""
    return f"{HEAD}SCHEME = Scheme('mine', {mix}, {weights}, {more})\n"


MEAN = "lambda a: [[1 / len(a)] * len(a)]"
NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, exits, features, teachers, config):
        super().__init__()
        self.wide = nn.Linear(features, {width})
    def forward(self, features):
        return {mix}
"""
REFUSED = {
    "no scheme": ("x = 1\n", "needs a line SCHEME = Scheme"),
    "no Python": ("SCHEME = (\n", "is not valid Python: line 1"),
    "too few parts": (f"{HEAD}SCHEME = Scheme('mine')\n", "fails: line 2: TypeError: .*'weights'"),
    "one exit": (row(MEAN, more="multi_exit=False"), "leave out multi_exit"),
    "no title": (f"{HEAD}SCHEME = Scheme(3, {MEAN}, {MEAN})\n", "title needs to be a text, got 3"),
    "a matrix": (row("[[1, 0, 0, 0]]"), "mix needs to be a function of alpha .* got list"),
    "matrices": (row(MEAN, "[[1]] * 4"), "weights needs to be a function of alpha .* got list"),
    "no mix": (row(), "mix needs to be a function of alpha .* got NoneType"),
    "a number": (row(MEAN, more="best=3"), "best needs to be a function of alpha .* got int"),
    "a fourth": (row(MEAN, more="True"), "fails: line 2: TypeError: .*positional arguments"),
    "an instance": (
        f"class Net:\n    def forward(self): pass\n{row('Net()')}",
        "mix needs to be the class Net itself",
    ),
    "labels": (row(MEAN, more="labels='x'"), "labels needs to be a number from 0 on, got 'x'"),
    "minus labels": (row(MEAN, more="labels=-1.0"), "labels needs to be a number from 0 on"),
    "half": (row(MEAN, more="least_exits=2.5"), "least_exits needs to be a whole number"),
    "yes": (row(MEAN, more="alpha='yes'"), "alpha needs to be True or False, got 'yes'"),
    "the end": ("import sys\nsys.exit(1)\n", "fails: line 2: SystemExit: 1"),
    "a helper": ("import no_such_helper\n", "ModuleNotFoundError: .* it needs to stand alone"),
    "nobody": (row("lambda a: []", "lambda a: [[] for _ in a]"), "weights needs to give 4 rows"),
    "zeros": (row(MEAN, "lambda a: [[0]] * len(a)"), "no exit learns .* --scheme branchynet"),
    "by chance": (
        row(MEAN, "lambda a: [[__import__('random').random()]] * len(a)"),
        "weights gives another matrix each time",
    ),
    "fixed to four": (
        row(MEAN, "lambda a: [[a[0]], [a[1]], [a[2]], [a[7]]]", "alpha=True"),
        "weights fails at alpha 3 3 3 3: line 2: IndexError",
    ),
    "alpha for nothing": (row(MEAN, more="alpha=True"), "nothing of it changes with alpha"),
    "ratios": (
        row("lambda a: [[x / sum(a) for x in a]]"),
        "mix changes with alpha: say so",
    ),
    "an error": (
        row(MEAN, "lambda a: [[1 / (a[0] - 3)]] * 4", "alpha=True"),
        "weights fails at alpha 3 3 3 3: line 2: ZeroDivisionError",
    ),
    "an array": (row(MEAN, "lambda a: __import__('numpy').ones((4, 1))"), r"its \.tolist\(\)"),
    "no number": (row(MEAN, "lambda a: [[None]] * len(a)"), "plain, finite numbers"),
    "not finite": (row(MEAN, "lambda a: [[float('nan')]] * len(a)"), "plain, finite numbers"),
    "too few rows": (row(MEAN, "lambda a: [[1.0]] * 3"), "4 rows, one an exit, .* got 3 rows of 1"),
    "ragged": (row(MEAN, "lambda a: [[1.0]] * 3 + [[]]"), "rows of 1, 1, 1, 0"),
    "negative": (row(MEAN, "lambda a: [[-1.0]] * len(a)"), "weights has a negative value"),
    "two sides": (
        row(MEAN, more="teacher_weights=lambda a: [[1.0, 1.0]] * len(a)"),
        "teacher_weights has 2 columns, weights has 1",
    ),
    "sum": (row("lambda a: [[1.0] * len(a)]"), "mix: row 1 sums to 4, expected 1"),
    "mix of others": (
        row("lambda a: [[0.5, 0.5]]"),
        "1 rows, .* each of 4 values, one an exit, got 1 rows of 2",
    ),
    "unknown": (row("'attentoin'"), "unknown weight network .*did you mean 'attention'"),
    "too few teachers": (row("'attention'"), "has 1 columns, one a teacher, but 'attention'"),
    "too many": (row("'gate'", "lambda a: [[1, 1]] * len(a)"), "but 'gate' composes one teacher$"),
    "untrained": (
        row("'gate'", more="teacher_weights=lambda a: [[0]] * len(a)"),
        "a teacher learns from no exit",
    ),
    "best": (row("'gate'", more="best=lambda a: [[1, 1, 0, 0]]"), "best: row 1 sums to 2"),
    "alpha": (row(MEAN, "lambda a: [[x] for x in a]"), r"changes with alpha: .*alpha=True"),
    "alpha in the mix": (
        row("lambda a: [[a[0] / (a[0] + 3), *[1 / (a[0] + 3)] * 3]]"),
        "mix changes with alpha",
    ),
    "more exits": (row(MEAN, more="least_exits=5"), "needs 5 exits or more, cnn4 has 4"),
}
NETWORKS = {
    "no module": (f"class Net: pass\n{row('Net')}", "Net is no torch.nn.Module"),
    "cannot be built": (NET.format(width="'a'", mix="features") + row("Net"), "line 7: TypeError"),
    "fails": (NET.format(width=1, mix="features @ features") + row("Net"), "Net fails: line 9: "),
    "shape": (
        NET.format(width=1, mix="self.wide(features)") + row("Net"),
        r"gives \(4, 2, 1\) of features \(4, 2, 32\), needs a tensor of \(2, 1, 4\)",
    ),
    "no tensor": (NET.format(width=1, mix="1") + row("Net"), "gives int of"),
    "numpy": (NET.format(width=1, mix="features.numpy()") + row("Net"), "gives ndarray of"),
    "double": (
        NET.format(width=1, mix="torch.ones(2, 1, 4).double() / 4") + row("Net"),
        r"gives \(2, 1, 4\) of torch.float64 of features",
    ),
    "no shares": (
        NET.format(width=1, mix="torch.ones(features.shape[1], 1, 4)") + row("Net"),
        "sum to 4, expected 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_with_a_file_is_one_line(write, case):
    text, said = REFUSED[case]
    with pytest.raises(InputError, match=said) as caught:
        SMALL.with_(scheme=write(text))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("case", NETWORKS)
def test_what_is_wrong_with_a_weight_network_is_one_line(write, case):
    text, said = NETWORKS[case]
    config = SMALL.with_(scheme=write(text))
    with pytest.raises(InputError, match=said) as caught:
        Teachers(config, features=32)
    assert "\n" not in str(caught.value)


def test_a_scheme_that_is_of_some_alpha_or_exits_alone_is_one(write):
    """It is asked for nothing but the matrices of its trials, and tried at other α with care."""
    text = "import math\n" + row(
        MEAN, "lambda a: [[math.log(x / 2), min(x, 1)][:1] for x in a]", "alpha=True"
    )
    assert SMALL.with_(scheme=write(text)).scheme
    with pytest.raises(InputError, match="weights has a negative value"):
        SMALL.with_(scheme=write(text), alpha=1.0)
    text = row(MEAN, "lambda a: [[a[0]], [a[1]], [a[2]], [min(a[3], 1)]]", "alpha=True")
    assert SMALL.with_(scheme=write(text)).scheme


def test_a_file_that_is_not_there_or_has_been_edited(write, tmp_path):
    with pytest.raises(InputError, match="scheme file './no.py' does not exist"):
        TrialConfig(scheme="./no.py")
    path = write(EED)
    assert not TrialConfig(scheme=path).digests["backbone"]
    before = TrialConfig(scheme=path).digests["scheme"]
    assert scheme_named(path).title == "eed once more"
    write(EED.replace("once", "twice"))
    assert scheme_named(path).title == "eed twice more"
    assert TrialConfig(scheme=path).digests["scheme"] != before
