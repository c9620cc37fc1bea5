"""What automate writes for optuna-dashboard: once, short, and never over a person's words."""

import json
import socket
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

from studies import dashboard
from studies import verdict as v
from studies.front import deployable
from studies.record import StudyRecord, list_studies
from tests.studies import made_up
from trainers.catalog import InputError


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    plan = made_up.plan(trials=4, base={"epochs": 3}, grace=1)
    return made_up.search(StudyRecord.create_or_open(plan, runs=tmp_path / "runs"))


def front_of(record: StudyRecord) -> optuna.Study:
    name = dashboard.front_study_name(record.name)
    return optuna.load_study(study_name=name, storage=record.study._storage)


def notes_of(record: StudyRecord) -> dict[int, str]:
    trials = record.study.get_trials(deepcopy=False)
    return {t.number: get_note(optuna.Trial(record.study, t._trial_id)) for t in trials}


def test_the_front_study_has_a_trial_for_each_exit_of_full_length(record: StudyRecord) -> None:
    assert dashboard.publish(record) == f"{record.name}-front"
    study = front_of(record)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["FLOPs", "accuracy"]
    assert study.user_attrs[dashboard.DERIVED] is True
    done = v.finished(record.outcomes())
    expected = {
        (o.number, point.exit): ([point.flops, point.accuracy], {**o.params, "exit": point.exit})
        for o in done
        for point in (o.report.exits if o.report else ())
    }
    found = {
        (t.user_attrs["trial"], t.user_attrs["exit"]): (t.values, t.params) for t in study.trials
    }
    assert found == expected
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert 0 < len(study.best_trials) <= len(expected)


def test_publishing_again_changes_nothing(record: StudyRecord) -> None:
    dashboard.publish(record)
    before = record.study._storage.get_study_system_attrs(record.study._study_id)
    trials = [trial._trial_id for trial in front_of(record).trials]
    dashboard.publish(record)
    assert record.study._storage.get_study_system_attrs(record.study._study_id) == before
    assert [trial._trial_id for trial in front_of(record).trials] == trials


def test_the_front_is_refreshed_while_a_search_runs(tmp_path: Path) -> None:
    """Another process's view: published between two epochs, the search goes on as if alone."""
    plan = made_up.plan(trials=3, base={"epochs": 2}, grace=2)
    driver = StudyRecord.create_or_open(plan, runs=tmp_path)
    onlooker = StudyRecord.open(plan.study, runs=tmp_path)
    sizes = []
    while (ticket := driver.ask()) is not None:
        for report in made_up.trained(ticket.config, ticket.number):
            dashboard.publish(onlooker)
            driver.report(ticket, report)
        dashboard.publish(onlooker)
        sizes.append(len(front_of(onlooker).trials))
    assert sizes == [4, 8, 12]
    assert [o.state for o in driver.outcomes()] == ["COMPLETE"] * 3
    assert [o.epochs for o in driver.outcomes()] == [2, 2, 2]


def test_a_study_of_several_objectives_keeps_their_names_and_its_own_front(tmp_path: Path) -> None:
    plan = made_up.plan(trials=8, base={"epochs": 3}, grace=1, objective="front")
    record = made_up.search(StudyRecord.create_or_open(plan, runs=tmp_path))
    dashboard.publish(record)
    outcomes = record.outcomes()
    assert any(outcome.state == "PRUNED" for outcome in outcomes)
    assert record.study.metric_names == record.metric_names
    assert [t.number for t in record.study.best_trials] == deployable(v.curves(outcomes))
    assert len(front_of(record).trials) == 4 * len(v.finished(outcomes))
    taken = v.recommended(outcomes)
    assert taken is not None and "anytime accuracy" in notes_of(record)[taken.number]


def test_a_study_that_was_started_over_gets_its_own_front(record: StudyRecord) -> None:
    dashboard.publish(record)
    study = front_of(record)
    stale = optuna.trial.create_trial(
        values=[1.0, 0.5], params={}, distributions={}, user_attrs={"trial": 77, "exit": 1}
    )
    study.add_trial(stale)
    dashboard.publish(record)
    assert all(trial.user_attrs["trial"] != 77 for trial in front_of(record).trials)
    assert len(front_of(record).trials) == 4 * len(v.finished(record.outcomes()))


def test_derived_studies_are_in_no_listing(record: StudyRecord) -> None:
    dashboard.publish(record)
    runs = record.folder.parent
    assert [summary.name for summary in list_studies(runs)] == [record.name]
    assert StudyRecord.open(None, runs=runs).name == record.name


def test_a_foreign_study_of_that_name_is_left_alone(record: StudyRecord) -> None:
    name = dashboard.front_study_name(record.name)
    theirs = optuna.create_study(study_name=name, storage=record.study._storage)
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(InputError, match="none that automate derived"):
        dashboard.publish(record)
    assert len(theirs.trials) == 1


def test_the_figure_and_the_metric_are_there(record: StudyRecord) -> None:
    dashboard.publish(record)
    attributes = record.study._storage.get_study_system_attrs(record.study._study_id)
    figure = json.loads(get_plotly_graph_objects(attributes)["front"])
    assert figure["layout"]["title"]["text"] == f"Front of {record.name}"
    assert {"exit 1", "exit 4"} <= {trace["name"] for trace in figure["data"]}
    assert record.study.metric_names == [record.plan.objective]


def test_the_best_trials_have_notes_with_their_numbers(record: StudyRecord) -> None:
    dashboard.publish(record)
    outcomes, notes = record.outcomes(), notes_of(record)
    order = v.recommended_first(outcomes)
    for rank, outcome in enumerate(order, start=1):
        assert f"**Rank {rank}**" in notes[outcome.number]
        assert f"best/{rank}.yaml" in notes[outcome.number]
        assert outcome.report is not None
        for point in outcome.report.exits:
            assert f"| {point.exit} | {v.flops_text(point.flops)} | " in notes[outcome.number]
            assert v.percent(point.accuracy) in notes[outcome.number]
    others = {o.number for o in outcomes} - {o.number for o in order}
    assert not any(notes[number] for number in others)
    assert dashboard.markdown(v.verdict(outcomes, record.plan)) in get_note(record.study)


def test_a_persons_note_is_never_overwritten(record: StudyRecord) -> None:
    best = v.recommended_first(record.outcomes())[0]
    trial = optuna.Trial(record.study, record.study.trials[best.number]._trial_id)
    save_note(trial, "mine")
    dashboard.publish(record)
    assert notes_of(record)[best.number] == "mine"
    save_note(trial, f"ours of yesterday\n\n{dashboard.SIGNED}")
    dashboard.publish(record)
    assert notes_of(record)[best.number].startswith("**Rank 1**")


def test_names_in_notes_are_text() -> None:
    assert dashboard.markdown("<b>|[x](y)*_`\n#") == "&lt;b&gt;\\|\\[x\\]\\(y\\)\\*\\_\\` \\#"


def test_a_parameter_named_exit_stays(tmp_path: Path) -> None:
    space = tmp_path / "mine.py"
    space.write_text(
        '"""A space with a parameter of that name."""\n'
        "def starts(base):\n    return [{'exit': 3.0}]\n"
        "def suggest(trial, base):\n"
        "    return base.with_(alpha=trial.suggest_float('exit', 1, 9))\n"
    )
    plan = made_up.plan(str(space), 2, study="mine", base={"epochs": 1}, grace=1)
    record = made_up.search(StudyRecord.create_or_open(plan, runs=tmp_path / "runs"))
    dashboard.publish(record)
    trial = front_of(record).trials[0]
    assert trial.params == {"exit": 3.0, "exit (of automate)": 1}


def test_a_study_without_a_finished_trial_can_be_published(tmp_path: Path) -> None:
    plan = made_up.plan(trials=2, base={"epochs": 1}, grace=1)
    record = StudyRecord.create_or_open(plan, runs=tmp_path)
    dashboard.publish(record)
    assert front_of(record).trials == []
    assert "nothing can be said yet" in get_note(record.study)


def test_it_listens_on_loopback_unless_told_otherwise(
    record: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "optuna_dashboard.run_server", lambda storage, host, port: asked.append((host, port))
    )
    dashboard.serve(record)
    dashboard.serve(record, host="0.0.0.0", port=9000)
    assert asked == [("127.0.0.1", 8080), ("0.0.0.0", 9000)]


def test_a_taken_port_is_one_line(record: StudyRecord) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port} .it is in use.: choose another"):
            dashboard.serve(record, port=port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.5"])
def test_loopback_needs_no_more_words(host):
    assert dashboard.checked_host(host, anyone=False) == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", "", "127.0.0.1.x"])
def test_another_address_needs_a_flag_that_says_what_it_means(host):
    with pytest.raises(InputError, match="asks for no password.*--let-anyone-in") as caught:
        dashboard.checked_host(host, anyone=False)
    assert "\n" not in str(caught.value)
    assert dashboard.checked_host(host, anyone=True) == host


def test_a_copy_keeps_nothing_of_what_is_done_to_it(tmp_path):
    record = StudyRecord.create_or_open(made_up.plan(trials=4), runs=tmp_path)
    made_up.search(record, trials=2)
    assert not dashboard.is_searched(record)
    ticket = record.ask()
    assert ticket is not None
    before = record.outcomes()
    with dashboard.copied(record) as copy:
        assert dashboard.is_searched(copy)
        assert copy.outcomes() == before
        dashboard.publish(copy)
        copy.study._storage.delete_study(copy.study._study_id)
        database = copy.place.database
    assert record.outcomes() == before
    assert [s.study_name for s in record.study._storage.get_all_studies()] == [record.name]
    assert database is not None and not database.parent.exists()
    record.close()
