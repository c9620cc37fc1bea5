"""A row of the table: PostgreSQL is started again while two searches share a study on it."""

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from studies.record import StudyRecord
from studies.storage import connect, place
from tests.faults.counting import Row, backbone, compared, trained, untouched
from tests.faults.drivers import Search
from tests.faults.servers import PASSWORD, Server

TRIALS, EPOCHS = 12, 20
MOST = 4  # restarts of one study
TOLD = """
CREATE TABLE told (number INTEGER);
CREATE FUNCTION tell() RETURNS trigger AS
$$ BEGIN INSERT INTO told VALUES (NEW.number); RETURN NULL; END $$ LANGUAGE plpgsql;
CREATE TRIGGER tells AFTER UPDATE OF state ON trials FOR EACH ROW
WHEN (NEW.state IN ('COMPLETE', 'PRUNED', 'FAIL')) EXECUTE FUNCTION tell();
"""


def restarted(times: int, rng: random.Random) -> Iterator[Row]:
    """In order and as after a crash, away for up to a second."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        server.start()
        try:
            yield from restarted_of(server, times, rng)
        finally:
            server.stop("immediate")


def restarted_of(server: Server, times: int, rng: random.Random) -> Iterator[Row]:
    """The same of a server that runs; a database of its own for each study."""
    import psycopg

    whole, done = untouched(TRIALS, EPOCHS), 0
    while done < times:
        name = f"faults_{rng.randrange(10**9)}"
        with psycopg.connect(server.url, autocommit=True) as session:
            session.execute(f"CREATE DATABASE {name}")
        url = server.url.replace("/postgres", f"/{name}")
        assert url.endswith(name)
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            made = connect(place(url, home, "s"))
            made.engine.dispose()
            with psycopg.connect(url, autocommit=True) as session:
                session.execute(TOLD)
            row = Row(tried=both(server, url, home, min(MOST, times - done), rng))
            with closing(StudyRecord.open("s", url, home / "0" / "runs")) as record:
                with psycopg.connect(url) as session:
                    told = [number for (number,) in session.execute("SELECT number FROM told")]
                row += compared(record, whole, told, trained(home))
            for file in home.rglob("*"):
                assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file
        done += row.tried
        yield row


def both(server: Server, url: str, home: Path, most: int, rng: random.Random) -> int:
    """Two searches of the study until both end; how often the server was started again."""
    words = (
        "--trials", str(TRIALS), "--epochs", str(EPOCHS), "--grace", str(EPOCHS),
        "--sampler", "random", "--no-early-stopping", "--backbone", backbone(home),
    )  # fmt: skip
    searches = []
    for nth in range(2):
        (home / str(nth)).mkdir()
        searches.append(Search(home / str(nth), *words, storage=url, forked=True))
    end, count = time.monotonic() + 200, 0
    while count < most and time.monotonic() < end:
        if len(list(home.glob("*.epochs"))) == 2:  # both train
            time.sleep(rng.uniform(0, 1.5))
            if any(search.poll() is not None for search in searches):
                break
            server.restart(rng.choice(("fast", "immediate")), away=rng.uniform(0, 1))
            count += 1
        time.sleep(0.02)
    for search in searches:
        code, out, err = search.ended()
        assert code == 0, err
        assert PASSWORD not in out + err
    return count
