"""`automate search` as processes of their own, and what their study came to."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

from studies.record import StudyRecord
from tests.faults.counting import Described
from tests.faults.counting import described as described_of
from tests.faults.points import ENVIRONMENT

ROOT = Path(__file__).parents[2]
SPACE = "diverse_alpha"
OVER = ("COMPLETE", "PRUNED")


class Search:
    """A small search on the digits, one worker and one thread unless the words say otherwise.

    Args:
        cwd: Where it starts.
        *words: Added to its command.
        storage: Its $AUTOMATE_STORAGE.
        fault: See `points`.
        forked: From a process that has the libraries loaded already, which spares seconds.
    """

    def __init__(
        self,
        cwd: Path,
        *words: str,
        storage: str | None = None,
        fault: str = "",
        forked: bool = False,
    ) -> None:
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", ENVIRONMENT: fault,
            "AUTOMATE_DEBUG": "1",
        }  # fmt: skip
        environment.pop("AUTOMATE_STORAGE", None)
        if storage is not None:
            environment["AUTOMATE_STORAGE"] = storage
        # The precision is given: left alone it is what a busy machine happens to be faster in.
        line = [
            "search", "--space", SPACE, "--study", "s", "--threads", "1", "--device", "cpu",
            "--precision", "fp32", "--limit-train", "60", "--batch-size", "64", *words,
        ]  # fmt: skip
        if "--workers" not in words:
            line += ["--workers", "1"]
        self._said = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        files = [file.fileno() for file in self._said]
        self._popen: subprocess.Popen[bytes] | None = None
        if forked:
            names = [f"/proc/{os.getpid()}/fd/{file}" for file in files]
            self._process = FORKS.Process(target=_search, args=(cwd, line, environment, names))
            self._process.start()
        else:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "automate", *line],
                cwd=cwd, env=environment, stdout=files[0], stderr=files[1],
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._popen.pid if self._popen else self._process.pid or 0

    def poll(self) -> int | None:
        """The exit code, once there is one; the negative signal if that ended it."""
        return self._popen.poll() if self._popen else self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            # of a fork it is the server that knows the end, and tells it a little later
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def ended(self, timeout: float = 300) -> tuple[int, str, str]:
        """Waits for the exit code, and what was printed; no traceback in it."""
        if self._popen:
            self._popen.wait(timeout)
        else:
            self._process.join(timeout)
        code = self.poll()
        texts = []
        for file in self._said:
            file.seek(0)
            texts.append(file.read())
            file.close()
        assert code is not None, f"it runs on after {timeout} s"
        assert "Traceback" not in "".join(texts), texts
        return code, texts[0], texts[1]


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.faults.preloaded"])


def _search(cwd: Path, line: list[str], environment: dict[str, str], names: list[str]) -> None:
    """The command, in a process that was forked for it."""
    for name, stream in zip(names, (1, 2), strict=True):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["automate", *line]
    from automate.main import main

    main()


def described(cwd: Path, storage: str | None = None) -> Described:
    """`counting.described` of the folder's study."""
    with closing(StudyRecord.open("s", storage, cwd / "runs")) as record:
        return described_of(record)


def whole(cwd: Path, trials: int, epochs: int, storage: str | None = None) -> None:
    """Every trial ended once, with every epoch once, and nothing is left of them."""
    with closing(StudyRecord.open("s", storage, cwd / "runs")) as record:
        outcomes = record.outcomes()
        assert [o.number for o in outcomes] == list(range(trials))
        assert set(Counter(o.state for o in outcomes)) <= set(OVER), outcomes
        for outcome in outcomes:
            done = [report.epoch for report in record.reports(outcome.number)]
            assert done == list(range(1, outcome.epochs + 1))
            assert (outcome.state == "COMPLETE") == (outcome.epochs == epochs)
            assert not list((record.folder / "trials").rglob("*.pt*"))
