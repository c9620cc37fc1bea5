import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from studies.drivers import Driver, DriverLock, is_dead
from studies.record import StudyRecord
from tests.studies.example import make_plan, make_report, run_all
from trainers.catalog import InputError

HOLD = (
    "import sys; from pathlib import Path\n"
    "from studies.drivers import Driver, DriverLock\n"
    "lock = DriverLock(Path(sys.argv[1]), 'tried', lambda: True)\n"
    "print(Driver().name, flush=True); sys.stdin.read()"
)
DRIVE = (
    "import sys; from pathlib import Path\n"
    "from studies.record import StudyRecord; from tests.studies.example import *\n"
    "record = StudyRecord.create_or_open(make_plan(Path(sys.argv[1])), runs=Path(sys.argv[1]))\n"
    "ticket = record.ask(); record.report(ticket, make_report(1, 0.5))\n"
    "print(record.driver.name, flush=True); sys.stdin.read()"
)


@pytest.fixture
def other_process():
    """Starts a script that says its driver's name and then waits to be killed."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "."},
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_every_driver_has_its_own_name():
    assert len({Driver().name for _ in range(10)}) == 10
    assert not is_dead(Driver().name)


def test_a_killed_process_is_dead_and_a_living_one_is_not(other_process, tmp_path):
    process, name = other_process(HOLD, str(tmp_path / "lock"))
    assert not is_dead(name)
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(name), "a zombie drives nothing"
    process.communicate()
    assert is_dead(name)


def test_a_number_that_another_process_has_by_now_is_dead():
    place, pid, _, count = Driver().name.split(":")
    assert is_dead(f"{place}:{pid}:1:{count}")


@pytest.mark.parametrize("name", ["elsewhere:1:0:1", "", "x", ":::", "elsewhere:99999999:0:1"])
def test_nothing_is_known_of_other_machines(name):
    assert not is_dead(name)


def test_a_second_process_is_refused_until_the_first_is_killed(other_process, tmp_path):
    path = tmp_path / "driver.lock"
    process, _ = other_process(HOLD, str(path))
    refusal = rf"study 'tried' is being searched by another process \(process {process.pid} on .*\)"
    with pytest.raises(InputError, match=refusal):
        DriverLock(path, "tried", lambda: False)
    process.kill()
    process.communicate()
    lock = DriverLock(path, "tried", lambda: False)
    assert lock.held
    lock.release()
    assert not lock.held


def test_within_a_process_an_idle_holder_gives_way_and_a_busy_one_does_not(tmp_path):
    path = tmp_path / "driver.lock"
    idle = DriverLock(path, "tried", lambda: False)
    busy = DriverLock(path, "tried", lambda: True)
    assert busy.held and not idle.held
    with pytest.raises(InputError, match="being searched by this process"):
        DriverLock(path, "tried", lambda: False)
    idle.release()
    assert busy.held, "whoever lost it cannot give it away"
    busy.release()


def test_a_killed_drivers_study_goes_on_at_once(other_process, tmp_path):
    process, name = other_process(DRIVE, str(tmp_path))
    reader = StudyRecord.open("tried", runs=tmp_path)
    assert [o.state for o in reader.outcomes()][:2] == ["RUNNING", "WAITING"]
    with pytest.raises(InputError, match="is being searched by another process"):
        reader.ask()
    with pytest.raises(InputError, match="is being searched by another process"):
        StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path, fresh=True)
    process.kill()
    process.communicate()
    record = StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path)
    assert is_dead(name)
    ticket = record.ask()
    assert ticket is not None
    assert (ticket.number, ticket.attempt, ticket.epochs_done) == (0, 2, 1)
    assert record.report(ticket, make_report(2, 0.5))
    record.give_back(ticket)
    run_all(record)
    assert {o.state for o in reader.outcomes()} <= {"COMPLETE", "PRUNED"}
    record.close()
    reader.close()


def test_a_forgotten_record_with_trials_out_does_not_block_its_study(tmp_path):
    record = StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path)
    record.ask()
    with pytest.raises(InputError, match="being searched by this process"):
        StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path)
    del record
    again = StudyRecord.create_or_open(make_plan(tmp_path), runs=tmp_path)
    assert [o.state for o in again.outcomes()] == ["WAITING"] * 6
    again.close()


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        DriverLock(Path(tmp_path / "missing" / "driver.lock"), "tried", lambda: False)
