"""A node of a real Ray cluster lost while it trains."""

import pytest

from studies.plan import StudyPlan
from studies.record import StudyRecord
from trainers.config import TrialConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.filterwarnings("default"),
]


def test_a_lost_node_is_noticed_and_its_trials_go_on_elsewhere(tmp_path):
    from ray.cluster_utils import Cluster

    from studies import cluster as on_ray  # sets Ray's environment first

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        made.wait_for_nodes()
        base = TrialConfig(dataset="digits", epochs=8, limit_train=150)
        plan = StudyPlan(study="s", space="diverse_alpha", base=base, trials=4, grace=8, workers=2)
        record = StudyRecord.create_or_open(plan, runs=tmp_path)
        lost = []

        def lose(event):
            if event.kind == "epoch" and event.report.epoch == 3 and event.number == 1 and not lost:
                lost.append(nodes[0])
                made.remove_node(nodes[0], allow_graceful=False)

        assert on_ray.search(record, lose, address=made.address) is None
        assert lost
        outcomes = record.outcomes()
        assert [o.state for o in outcomes] == ["COMPLETE"] * 4
        assert sorted(o.attempt for o in outcomes) == [1, 1, 1, 2], "one of them ran there"
        for outcome in outcomes:
            epochs = [report.epoch for report in record.reports(outcome.number)]
            assert epochs == list(range(1, 9))
    finally:
        made.shutdown()
