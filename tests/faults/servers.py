"""A real PostgreSQL on loopback, in a folder of its own, run by an unprivileged user."""

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path

PASSWORD = "h3mlich-und-lang"


def binaries() -> Path | None:
    """Where initdb and pg_ctl are, or None."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def free_port() -> int:
    """One below those that connections are given, which would take it while the server is away."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


class Server:
    """Started by `start`, ended by `stop`; the data stay in between."""

    def __init__(self, folder: Path) -> None:
        found = binaries()
        assert found is not None
        self.bin, self.data, self.port = found, folder / "data", free_port()
        self.user: int | None = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            names = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
            self.user = names.get("postgres", names["nobody"])
            os.chown(folder, self.user, -1)
            for parent in folder.parents:  # it has to get there
                if parent.stat().st_uid == 0 and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o011)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if self.user is not None:
            os.chown(secret, self.user, -1)
        self._run(
            "initdb", "-D", str(self.data), "-U", "automate", "--auth=scram-sha-256",
            f"--pwfile={secret}", "--no-sync", "--no-locale", "-E", "UTF8",
        )  # fmt: skip

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self.bin / program), *words], user=self.user, cwd=self.data.parent,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.data.parent} -c fsync=off"
        words = ("-D", str(self.data), "-o", options, "-w", "-l", str(self.data.parent / "log"))
        for tries_left in range(20, -1, -1):
            try:
                return self._run("pg_ctl", *words, "start")
            except AssertionError:
                # After a crash its last processes may still hold the shared memory for a moment.
                if not tries_left:
                    raise AssertionError((self.data.parent / "log").read_text()[-500:]) from None
                time.sleep(0.3)

    def stop(self, how: str = "fast") -> None:
        """`fast` breaks the connections; `immediate` is a crash."""
        self._run("pg_ctl", "-D", str(self.data), "-m", how, "-w", "stop")

    def restart(self, how: str = "fast", away: float = 0.0) -> None:
        self.stop(how)
        time.sleep(away)
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://automate:{PASSWORD}@127.0.0.1:{self.port}/postgres"
