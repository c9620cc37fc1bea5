"""The record that decides a run: defaults, validation, and the way to JSON and back."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.plan import StudyPlan, default_study_name
from trainers import catalog
from trainers.catalog import InputError, shortened
from trainers.config import TrialConfig
from trainers.reports import EpochReport, ExitPoint
from trainers.schemes import SCHEMES

POINT = ExitPoint(exit=1, flops=10, flops_cascade=12, accuracy=0.1 + 0.2, top5=0.9)
RECORDS = [
    TrialConfig(),
    TrialConfig(dataset="cifar100", alpha=(30, 5, 10, 10), alpha_teacher=1, limit_train=2000),
    TrialConfig(temperatures=(1, 2), exit_weights=(1, 2, 3, 4), attached=True, gate_input="own"),
    POINT,
    EpochReport(
        epoch=1, loss=1 / 3, seconds=2.0, split="validation", exits=(POINT,), teachers=(0.5,),
        mix=((0.25, 0.75),), mix_entropy=(0.56,), temperature=1.05**7,
    ),
    EpochReport(epoch=3, loss=None, seconds=0.1, split="test", exits=()),
    StudyPlan(study="a-b.c", space="everything", base=TrialConfig(), trials=3, grace=2),
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_record_goes_to_json_and_back_unchanged(record):
    assert type(record).model_validate_json(record.model_dump_json()) == record
    assert hash(record) == hash(type(record).model_validate_json(record.model_dump_json()))


def test_the_paper_needs_no_further_setting():
    config = TrialConfig(dataset="cifar100")
    assert (config.backbone, config.epochs, config.batch_size) == ("vgg16", 300, 128)
    assert (config.lr, config.momentum, config.weight_decay) == (0.1, 0.9, 5e-4)
    assert (config.scheme, config.alpha, config.temperature) == ("mate", (3.0,), 3.0)
    assert (config.kd_weight, config.t_squared, config.ramp_up) == (1.0, False, 0)


@pytest.mark.parametrize("name", catalog.DATASETS)
def test_every_data_set_brings_a_whole_config(name):
    config = TrialConfig(dataset=name)
    assert config.classes == catalog.DATASETS[name].classes
    assert config.image_size in catalog.BACKBONES[config.backbone].image_sizes


BAD = [
    ({"alpha": (1.0, 2.0)}, "alpha needs 1 or 4 values, got 2"),
    ({"alpha": -1.0}, "alpha needs values from 0"),
    ({"alpha": float("nan")}, "alpha"),
    ({"alpha_teacher": (1.0,) * 3}, "alpha_teacher needs 1 or 4 values, got 3"),
    ({"scheme": "baseline", "alpha": (1.0,) * 4}, "alpha needs 1 value, got 4"),
    ({"exit_weights": (1.0,)}, "exit_weights needs 4 values, got 1"),
    ({"exit_weights": (1.0, 1.0, 1.0, -1.0)}, "exit_weights needs values from 0"),
    ({"temperatures": ()}, "temperatures needs values above 0"),
    ({"temperatures": (3.0, 0.0)}, "temperatures needs values above 0"),
    ({"gate_input": "none"}, "gate_input"),
    ({"temperature": 0}, "temperature: .*greater than 0, got 0"),
    ({"temperature": float("inf")}, "temperature"),
    ({"epochs": 0}, "epochs"),
    ({"lr": "fast"}, "lr: .*got 'fast'"),
    ({"validation": 1.0}, "validation"),
    ({"backbone": "vgg61"}, "unknown backbone 'vgg61'.*did you mean 'vgg16'"),
    ({"backbone": "vgg16"}, "vgg16 takes images of 32 pixels, digits has 8"),
    (
        {"dataset": "./tree", "classes": 3, "image_size": 16},
        "^no built-in network takes images of 16x16 pixels, as ./tree has: --resize 8, 32 or "
        "224 makes them fit, or take a Python file of your own, --backbone FILE "
        r"\(`automate backbones FILE` checks it\)$",
    ),
    (
        {"dataset": "./tree", "classes": 3, "image_size": 224, "backbone": "vgg16"},
        "takes images of 32 pixels, ./tree has 224: choose another --backbone, or --resize 32$",
    ),
    ({"resize": 32}, "resize is for class folders of your own .*, digits has a size of its own"),
    (
        {"dataset": "./tree", "classes": 3, "resize": 32, "image_size": 8},
        "resize is 32 and image_size 8: give resize alone, or both the same value",
    ),
    (
        {"dataset": "./tree", "classes": 3, "resize": 0},
        "^resize needs to be from 1 to 4096, got 0$",
    ),
    ({"backbone": "./mine.py"}, "does not exist"),
    ({"scheme": "matte"}, "unknown scheme 'matte'.*did you mean 'mate'"),
    ({"dataset": "cifar10"}, "unknown dataset 'cifar10'.*did you mean 'cifar100'"),
    ({"dataset": "./folder"}, "classes is missing"),
    ({"temprature": 3}, "unknown field 'temprature'.*did you mean 'temperature'"),
    ({"kl": "sideways"}, "kl"),
    ({"schema_version": 2}, "schema_version"),
]


@pytest.mark.parametrize(("fields", "says"), BAD, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said_in_one_line(fields, says):
    with pytest.raises(InputError, match=says) as caught:
        TrialConfig(**{"dataset": "digits", **fields})
    if "dataset" not in fields:
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError):
            TrialConfig().with_(**fields)


@pytest.mark.parametrize(("resize", "stored"), [(224, 256), (32, 32)])
def test_images_are_kept_larger_where_there_is_a_border_to_spare(resize, stored):
    config = TrialConfig(dataset="./tree", classes=3, resize=resize, backbone="resnet18")
    assert (config.image_size, config.stored_size) == (resize, stored)
    other = config.with_(resize=32 if resize == 224 else 224)
    assert other.image_size == other.resize != resize, "the size follows"
    plain = TrialConfig(dataset="./tree", classes=3, image_size=resize, backbone="resnet18")
    assert plain.stored_size == resize


@pytest.mark.parametrize(
    ("text", "most", "wanted"),
    [
        ("known are lr,\n  alpha", 40, "known are lr, alpha"),
        ("known are lr, alpha", 19, "known are lr, alpha"),
        ("known are lr, alpha, schema_version", 30, "known are lr, alpha..."),
        ("known are lr, alpha, schema_version", 16, "known are lr..."),
        ("one two three", 10, "one two..."),
        ("x" * 50, 10, "xxxxxxx..."),
        (f"no file {'/x' * 50}", 30, "no file /x/x/x/x/x/x/x/x/x/..."),
        ("", 10, ""),
    ],
)
def test_what_is_too_long_is_cut_after_a_word(text, most, wanted):
    assert shortened(text, most) == wanted and len(wanted) <= most


@pytest.mark.parametrize("mapping", [None, [], "alpha", {1: 2}])
def test_read_refuses_what_is_no_mapping(mapping):
    with pytest.raises(InputError, match="mapping"):
        TrialConfig.read(mapping)


@given(st.dictionaries(st.text(max_size=12), st.none() | st.text() | st.floats() | st.integers()))
def test_any_mapping_gives_a_config_or_one_line(mapping):
    try:
        TrialConfig.read(mapping)
    except InputError as error:
        assert str(error)


def test_a_record_of_an_older_version_without_newer_fields_opens():
    old = TrialConfig(alpha=5).model_dump(mode="json")
    for field in ("mix_scale", "ramp_up", "kl"):
        del old[field]
    assert TrialConfig.read(old) == TrialConfig(alpha=5)


def test_alpha_per_exit():
    assert TrialConfig(alpha=2).alpha_per_exit() == (2.0,) * 4
    assert TrialConfig(alpha=(1, 2, 3, 4)).alpha_teacher_per_exit() == (1.0, 2.0, 3.0, 4.0)
    assert TrialConfig(alpha=2, alpha_teacher=0).alpha_teacher_per_exit() == (0.0,) * 4


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc", "-x", "a" * 101, "a\nb", "<b>", "a b", "ä", "a\x00"]
)
def test_study_names_are_folder_names(name):
    with pytest.raises(InputError, match="study name"):
        StudyPlan(study=name, space="everything", base=TrialConfig(), trials=3, grace=2)


def test_okddip_needs_a_peer(tmp_path):
    path = tmp_path / "shallow.py"
    path.write_text("EXITS = 1\n")
    with pytest.raises(InputError, match="okddip needs 2 exits or more, .*shallow.py has 1"):
        TrialConfig(backbone=str(path), scheme="okddip")


def test_default_study_names(tmp_path):
    assert default_study_name(TrialConfig(), "diverse_alpha") == "digits-cnn4-diverse_alpha"
    folder = TrialConfig(dataset="some/where/my data", classes=3, image_size=8)
    assert default_study_name(folder, "./spaces/mine.py") == "my_data-cnn4-mine"


def test_plans_refuse_bad_counts_in_one_line():
    with pytest.raises(InputError, match="trials"):
        StudyPlan(study="a", space="everything", base=TrialConfig(), trials=0, grace=2)


def test_rows_of_the_table_of_schemes():
    for name, scheme in SCHEMES.items():
        weights = scheme.weights([1.0, 2.0, 3.0, 4.0])
        assert len(weights) == 4, name
        if not isinstance(scheme.mix, str):
            mix = scheme.mix([1.0, 2.0, 3.0, 4.0])
            assert all(sum(row) == pytest.approx(1) for row in mix), name
            assert len(mix) == len(weights[0]), name
    strengths = {
        name: sum(sum(row) for row in SCHEMES[name].weights([3.0] * 4)) / 4
        for name in ("byot", "eed", "dks", "mate")
    }
    assert strengths == {"byot": 0.75, "eed": 1.0, "dks": 3.0, "mate": 7.0}


def test_records_names_and_defaults_load_no_torch():
    code = (
        "import sys, trainers.config, trainers.schemes, studies.plan\n"
        "print([m for m in ('torch', 'optuna', 'ray', 'numpy', 'sklearn') if m in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert loaded.strip() == "[]"
