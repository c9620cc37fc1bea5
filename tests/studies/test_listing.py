import sqlite3
from contextlib import closing

import optuna
import pytest
from optuna.storages import InMemoryStorage

from studies.calibrating import calibration_plan
from studies.drivers import Driver
from studies.record import StudyRecord, list_studies
from tests.studies import made_up, made_up_confirmations
from tests.studies.example import make_plan, run, run_all
from trainers.catalog import InputError


def created(folder, name, clock=1.0, storage=None, **fields):
    driver = Driver(clock=lambda: clock)
    plan = make_plan(folder, study=name, **fields)
    return StudyRecord.create_or_open(plan, storage, folder / "runs", driver=driver)


@pytest.fixture
def three(tmp_path):
    """Studies a, b and c in folders of their own; b was searched last."""
    for name, clock in (("a", 1.0), ("c", 2.0), ("b", 3.0)):
        record = created(tmp_path, name, clock, trials=3)
        if name == "b":
            run(record, record.ask())
            record.ask()
            record.fail(record.ask(), "broke")
            record._held.clear()  # as if it were still running
        record.close()
    return tmp_path / "runs"


def test_studies_are_listed_by_when_they_were_searched_last(three):
    found = list_studies(three)
    assert [summary.name for summary in found] == ["b", "c", "a"]
    latest = found[0]
    assert latest.states == {"WAITING": 0, "RUNNING": 1, "COMPLETE": 1, "PRUNED": 0, "FAIL": 1}
    record = StudyRecord.open("b", runs=three)
    assert latest.best == record.outcome(0).value and latest.plan == record.plan
    assert latest.path == three / "b" and latest.note is None
    assert found[1].best is None
    record.close()


def test_the_luckiest_run_of_a_repeated_config_is_nobodys_best(tmp_path):
    runs, searched = tmp_path / "runs", made_up.plan(base={"epochs": 3}, grace=1, study="s")
    plan = calibration_plan(searched, 5, 2)
    with closing(StudyRecord.create_or_open(plan, runs=runs)) as record:
        made_up.search(record)
    with (
        closing(made_up_confirmations.searched(runs)) as found,
        closing(made_up_confirmations.started(found, top=1, seeds=2)) as record,
    ):
        made_up_confirmations.race(record)
    best = {summary.name: summary.best for summary in list_studies(runs)}
    assert best["s-calibrate"] is best["searched-confirm"] is None
    assert best["searched"] is not None


def test_the_latest_study_is_opened_where_none_is_named(three):
    for expected in ("b", "a"):
        record = StudyRecord.open(None, runs=three)
        assert record.name == expected
        record.close()
        created(three.parent, "a", 4.0, trials=3).close()


def test_an_unknown_study_names_the_known_and_the_nearest(three):
    (three / "notes").mkdir()
    with pytest.raises(InputError) as caught:
        StudyRecord.open("bb", runs=three)
    assert str(caught.value) == "unknown study 'bb' (did you mean 'b'?): known are a, b, c"
    assert not (three / "bb").exists()


@pytest.mark.parametrize("name", ["../b", "/etc", "", "a/b", "x" * 300, "<b>", "a\n"])
def test_a_name_that_is_a_path_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="cannot be used"):
        StudyRecord.open(name, runs=tmp_path)


def test_no_study_at_all_is_said_in_one_line(tmp_path):
    assert list_studies(tmp_path / "runs") == []
    with pytest.raises(InputError, match="holds no study yet: start one with `automate search`"):
        StudyRecord.open(None, runs=tmp_path / "runs")
    with pytest.raises(InputError, match="unknown study 'x': there is none yet in .*runs/x"):
        StudyRecord.open("x", runs=tmp_path / "runs")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="runs folder .*file cannot be read"):
        list_studies(tmp_path / "file")


def test_what_cannot_be_read_is_listed_with_a_note_and_nothing_is_changed(three):
    texts = {
        "text": b"no database at all, but long enough",
        "torn": b"SQLite format 3\0" + 90 * b"x",
    }
    for name, content in texts.items():
        (three / name).mkdir()
        (three / name / "study.db").write_bytes(content)
    (three / "folder" / "study.db").mkdir(parents=True)
    (three / "other").mkdir()
    file = sqlite3.connect(three / "other" / "study.db")
    file.execute("CREATE TABLE theirs (x)")
    file.commit()
    file.close()
    before = (three / "other" / "study.db").read_bytes()
    found = {summary.name: summary for summary in list_studies(three)}
    assert set(found) == {"a", "b", "c", "text", "torn", "folder"}
    for name in ("text", "torn", "folder"):
        note = found[name].note
        assert note is not None and "\n" not in note and found[name].plan is None
    assert (three / "other" / "study.db").read_bytes() == before
    record = StudyRecord.open(None, runs=three)
    assert record.name == "b"
    record.close()
    with pytest.raises(InputError, match="unknown study 'other'"):
        StudyRecord.open("other", runs=three)


def test_studies_of_others_are_left_out_and_cannot_be_opened(tmp_path):
    url = f"sqlite:///{tmp_path}/all.db"
    record = created(tmp_path, "ours", storage=url)
    optuna.create_study(study_name="theirs", storage=record._direct).enqueue_trial({})
    optuna.create_study(study_name="ours-front", storage=record._direct)
    record.close()
    assert [summary.name for summary in list_studies(tmp_path / "runs", url)] == ["ours"]
    with pytest.raises(InputError, match="study 'theirs' was not made by automate"):
        StudyRecord.open("theirs", url, tmp_path / "runs")
    with pytest.raises(InputError, match="unknown study 'mine': known are ours"):
        StudyRecord.open("mine", url, tmp_path / "runs")


def test_a_url_lists_its_own_studies_alone(three, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/all.db"
    assert list_studies(three, url) == []
    created(tmp_path, "served", 9.0, url).close()
    assert [summary.name for summary in list_studies(three, url)] == ["served"]
    assert list_studies(three, url)[0].path == three / "served"
    monkeypatch.setenv("AUTOMATE_STORAGE", url)
    record = StudyRecord.open(None, runs=three)
    assert record.name == "served"
    record.close()


def test_a_storage_object_lists_its_studies(tmp_path):
    storage = InMemoryStorage()
    record = created(tmp_path, "kept", storage=storage)
    run_all(record)
    record.study.enqueue_trial({})
    (summary,) = list_studies(tmp_path / "runs", storage)
    assert sum(summary.states.values()) == 6 and summary.states["WAITING"] == 0
    assert summary.best == max(o.value for o in record.outcomes() if o.state == "COMPLETE")


def test_a_listing_counts_what_the_record_shows(tmp_path):
    record = created(tmp_path, "counted", trials=8)
    run_all(record)
    record.study.enqueue_trial({})
    (summary,) = list_studies(tmp_path / "runs")
    states = [outcome.state for outcome in record.outcomes()]
    assert summary.states == {state: states.count(state) for state in summary.states}
    assert summary.best == max(o.value for o in record.outcomes() if o.state == "COMPLETE")
    record.close()
