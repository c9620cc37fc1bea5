"""Nodes of a real Ray cluster, each with a folder of its own: what they do not share, and lost."""

import random
from contextlib import closing

import pytest

from studies.plan import StudyPlan
from studies.record import StudyRecord
from tests.faults import cluster_rows, counting
from tests.faults.nodes import Nodes
from trainers.catalog import InputError
from trainers.config import TrialConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Two nodes; what lies in `own` each of them has for itself."""
    own = tmp_path_factory.mktemp("nodes") / "own"
    own.mkdir()
    try:
        with Nodes(2, own) as made:
            yield made
    except OSError as error:
        pytest.skip(str(error))


def refusal(nodes: Nodes, plan: StudyPlan, runs) -> str:
    from studies import cluster

    seen = []
    with closing(StudyRecord.create_or_open(plan, runs=runs)) as record:
        with pytest.raises(InputError) as caught:
            cluster.search(record, seen.append, address=nodes.address)
        assert not seen, "before the first trial"
        assert {outcome.state for outcome in record.outcomes()} == {"WAITING"}
    assert "\n" not in str(caught.value) and str(caught.value).startswith("node ")
    return str(caught.value)


def test_a_checkpoint_folder_that_nodes_do_not_share_is_refused_at_the_start(nodes, tmp_path):
    base = TrialConfig(dataset="digits", epochs=2, limit_train=60)
    plan = StudyPlan(study="s", space="diverse_alpha", base=base, trials=2, grace=2, workers=2)
    text = refusal(nodes, plan, nodes.own)
    assert f"does not see the checkpoint folder {nodes.own / 's'}" in text
    assert "take a --runs-dir that all nodes share" in text


def test_data_and_backbones_that_only_the_driver_has_are_refused_at_the_start(
    nodes, tmp_path, class_folders
):
    tree = class_folders().rename(nodes.own / "tree")
    base = TrialConfig(dataset=str(tree), classes=3, image_size=8, epochs=2, backbone="cnn4")
    plan = StudyPlan(study="s", space="diverse_alpha", base=base, trials=2, grace=2, workers=2)
    assert "lacks the data: " in refusal(nodes, plan, tmp_path)
    own = counting.backbone(nodes.own)
    base = TrialConfig(dataset="digits", epochs=2, limit_train=60, backbone=own)
    plan = StudyPlan(study="b", space="diverse_alpha", base=base, trials=2, grace=2, workers=2)
    assert "cannot read the config: " in refusal(nodes, plan, tmp_path)


def test_lost_nodes_are_noticed_and_their_trials_go_on_elsewhere(nodes, tmp_path):
    (row,) = cluster_rows.nodes_lost_of(nodes, 2, random.Random(0))
    assert (row.tried, row.lost, row.twice) == (2, 0, 0)
    assert row.repeated <= 2, "the running epoch of each at most"
