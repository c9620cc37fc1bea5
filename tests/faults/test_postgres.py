"""A study on a real PostgreSQL: several drivers, a server that is started again, a password."""

import threading
import time
from contextlib import closing

import pytest

from studies import doctor
from studies import storage as storages
from studies.drivers import Driver
from studies.listing import is_begun, list_studies
from studies.record import StudyRecord
from studies.storage import StorageError
from tests.faults.servers import PASSWORD, Server
from tests.studies.example import make_plan, make_report, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def study(server: Server, tmp_path):
    """Makes records of a study of this test's own."""
    made = []

    def make(name: str, **fields) -> StudyRecord:
        driver = Driver(f"elsewhere:1:0:{len(made)}", time.time, 600.0)
        plan = make_plan(tmp_path, **{"study": name, "sampler": "random", **fields})
        made.append(StudyRecord.create_or_open(plan, server.url, tmp_path, driver=driver))
        return made[-1]

    yield make
    for record in made:
        record.close()


@pytest.mark.parametrize("objective", ["anytime", "front"])
def test_two_drivers_in_turn_run_every_trial_once(study, server: Server, tmp_path, objective):
    fields = {"trials": 8, "objective": objective}
    records = [study(f"turns-{objective}", **fields) for _ in range(2)]
    numbers = []
    while tickets := [(r, t) for r in records if (t := r.ask()) is not None]:
        for record, ticket in tickets:
            numbers.append(ticket.number)
            run(record, ticket)
    assert sorted(numbers) == list(range(8))
    best = max(o.value or 0.0 for o in records[0].outcomes() if o.state == "COMPLETE")
    listed = {found.name: found.best for found in list_studies(tmp_path, server.url)}
    assert listed[f"turns-{objective}"] == pytest.approx(best)


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_restarted_server_is_waited_for(study, server: Server, how):
    record = study(f"restart-{how}", trials=3, early_stopping=False)
    done = 0
    while (ticket := record.ask()) is not None:
        for epoch in range(1, 5):
            if (ticket.number + epoch) % 2:
                server.restart(how)
            going_on = record.report(ticket, make_report(epoch, 0.5))
            assert going_on == (epoch < 4)
        done += 1
    assert done == 3
    assert [(o.state, o.epochs, o.attempt) for o in record.outcomes()] == [("COMPLETE", 4, 1)] * 3


def test_another_study_of_a_server_that_is_away_is_waited_for(study, server: Server, tmp_path):
    found = study("beside", trials=1)
    server.stop("immediate")
    coming = threading.Timer(1.0, server.start)
    coming.start()
    try:
        assert is_begun("beside", tmp_path, found.storage)
    finally:
        coming.join()
    server.stop("immediate")
    coming = threading.Timer(1.0, server.start)
    coming.start()
    try:
        with closing(StudyRecord.open("beside", found.storage, tmp_path)) as again:
            assert again.name == "beside" and PASSWORD not in again.place.label
    finally:
        coming.join()


def test_leases_are_renewed_on_the_server_from_their_thread(study):
    record = study("leases", trials=1)
    ticket = record.ask()
    assert ticket is not None
    record.driver = Driver(record.driver.name, time.time, 1500.0)  # so that half of it has gone
    with record.renewing(every=0.05):
        end = time.monotonic() + 60
        while record._held[0].claim.until < time.time() + 1000 and time.monotonic() < end:
            time.sleep(0.02)
    assert (
        record._direct.get_trial(ticket and record._held[0].trial_id).user_attrs["claim"]["until"]
        > time.time() + 1000
    )


def test_a_server_that_stays_away_ends_it_in_one_line_without_the_password(
    study, server: Server, monkeypatch
):
    monkeypatch.setattr(storages, "PATIENCE", 1.0)
    record = study("away", trials=2)
    ticket = record.ask()
    assert ticket is not None
    server.stop()
    try:
        with pytest.raises(StorageError) as caught:
            record.report(ticket, make_report(1, 0.5))
        assert PASSWORD not in str(caught.value) and "\n" not in str(caught.value)
    finally:
        server.start()
    assert record.report(ticket, make_report(1, 0.5)), "the same trial goes on"


def test_a_study_on_a_server_is_mended_and_a_copy_kept(study, server: Server, tmp_path):
    record = study("ghost", trials=2)
    record.driver = Driver(f"{Driver().name.split(':')[0]}:4194303:1:1")  # one that is dead
    ticket = record.ask()
    assert ticket is not None and record.report(ticket, make_report(1, 0.5))
    record._held.clear()
    found = {f.what: f for f in doctor.study("ghost", server.url, tmp_path)}
    assert found["ghosts"].verdict == "mended"
    kept = found["copy"].text
    with closing(StudyRecord.open("ghost", f"sqlite:///{kept}", tmp_path)) as copied:
        assert (copied.outcome(0).state, copied.outcome(0).epochs) == ("RUNNING", 1)
    with closing(StudyRecord.open("ghost", server.url, tmp_path)) as mended:
        assert (mended.outcome(0).state, mended.outcome(0).epochs) == ("WAITING", 1)


def test_a_wrong_password_is_one_line_that_does_not_show_it(server: Server, tmp_path):
    wrong = server.url.replace(PASSWORD, "wr0ng-secret")
    with pytest.raises(StorageError) as caught:
        list_studies(tmp_path, wrong)
    assert "wr0ng-secret" not in str(caught.value) and "\n" not in str(caught.value)
    assert "authentication failed" in str(caught.value)
