"""The database file: many threads and processes at once, and all that can be wrong with a file."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

import md5light.queue.sqlite as databases
from md5light.errors import DatabaseError, DatabaseReplaced, DatabaseUnavailable
from md5light.queue import open_database
from md5light.queue.bell import BellListener
from md5light.queue.database import Transaction
from md5light.queue.jobs import Queue
from md5light.queue.sqlite import SQLite
from tests.child import Child
from tests.gathering import Gathering
from tests.upgrade import FIRST_SCHEMA, VERSION, check_upgraded

T = TypeVar("T")

LOCKING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin immediate")
connection.execute("insert into probe values (999, 1)")
print("locked")
input()
connection.execute("rollback")
print("free")
input()
"""

KILLED = """
import os, signal, sys
from md5light.queue import open_database
database = open_database(sys.argv[1], durable=True)
database.write(lambda transaction: transaction.run("insert into probe values (1, 1)"))
os.kill(os.getpid(), signal.SIGKILL)
"""

OPENING = """
import sys
from md5light.queue import open_database
print("ready")
input()
database = open_database(sys.argv[1], durable=True)
statement = "insert into probe values (:id, 1)"
database.write(lambda transaction: transaction.run(statement, id=int(sys.argv[2])))
print("written")
"""

BUSY = """
import sys
from md5light.queue import open_database
database = open_database(sys.argv[1], durable=False)
for number in range(4000):
    statement = "insert or replace into probe values (1, :n)"
    database.write(lambda transaction: transaction.run(statement, n=number))
print("written")
input()
"""

FULL = """
import os, resource, sys
from md5light.queue import open_database
from md5light.errors import DatabaseUnavailable

database = open_database(sys.argv[1], durable=True)
blow_up = (
    "insert into jobs (id, url, host, status, max_attempts, created_at)"
    " values (:id, :url, '', 'queued', 1, 1)"
)

def submit(id, size):
    database.write(lambda transaction: transaction.run(blow_up, id=id, url="x" * size))

def ids():
    rows = database.read(lambda transaction: transaction.all("select id from jobs order by id"))
    return [row["id"] for row in rows]

submit("before", 10)
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
limit = os.stat(sys.argv[1] + "-wal").st_size + 20_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
try:
    submit("during", 1_000_000)
except DatabaseUnavailable as error:
    print(error)
print(ids())
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
submit("later", 1_000_000)
print(ids())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite3"


@pytest.fixture
def database(path: Path) -> Iterator[SQLite]:
    with closing(SQLite(str(path), durable=True)) as database:
        yield database


def insert(number: int) -> Callable[[Transaction], int]:
    return lambda transaction: transaction.run(
        "insert into probe values (:number, 1)", number=number
    )


def stored(database: SQLite) -> list[int]:
    return [
        row["id"]
        for row in database.read(
            lambda transaction: transaction.all("select id from probe order by id")
        )
    ]


def open_error(path: Path) -> str:
    with pytest.raises(DatabaseError) as caught:
        SQLite(str(path), durable=True)
    message = str(caught.value)
    assert message.startswith(f"database {path}: ")
    assert "\n" not in message
    return message.removeprefix(f"database {path}: ")


def in_threads(works: list[Callable[[], T]]) -> list[T | Exception]:
    """Run each of `works` in its own thread; return, in order, what they returned or raised."""
    outcomes: dict[int, T | Exception] = {}

    def run(number: int, work: Callable[[], T]) -> None:
        try:
            outcomes[number] = work()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=entry) for entry in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [outcomes[number] for number in range(len(works))]


# --- writes and reads -----------------------------------------------------------------------------


def test_what_is_written_is_read_and_its_result_returned(database: SQLite) -> None:
    assert database.write(insert(1)) == 1
    row = database.read(
        lambda transaction: transaction.one("select * from probe where id = :id", id=1)
    )
    assert row == {"id": 1, "probed_at": 1.0}
    assert (
        database.read(lambda transaction: transaction.one("select * from probe where id = 2"))
        is None
    )


def test_many_threads_each_get_their_own_result(database: SQLite) -> None:
    def write_fifty(thread: int) -> list[int]:
        def write(number: int) -> int:
            def work(transaction: Transaction) -> int:
                transaction.run("insert into probe values (:number, 1)", number=number)
                row = transaction.one(
                    "select max(id) as id from probe where id / 50 = :thread", thread=thread
                )
                assert row
                return int(row["id"])

            return database.write(work)

        return [write(thread * 50 + number) for number in range(50)]

    outcomes = in_threads([partial(write_fifty, thread) for thread in range(12)])
    assert outcomes == [list(range(thread * 50, thread * 50 + 50)) for thread in range(12)]
    assert stored(database) == list(range(600))


def test_writes_of_one_kind_share_one_commit_in_the_order_they_came(database: SQLite) -> None:
    gathering = Gathering(database)
    transactions: list[Transaction] = []
    numbers: list[int] = []

    def one_kind(transaction: Transaction, items: list[int]) -> list[int]:
        transactions.append(transaction)
        numbers.extend(items)
        return [-item for item in items]

    def other_kind(transaction: Transaction, items: list[int]) -> list[int]:
        return one_kind(transaction, items)

    with ThreadPoolExecutor(8) as threads:
        results = []
        for number in range(8):
            kind = other_kind if number in (2, 5) else one_kind
            results.append(threads.submit(database.write_together, kind, number))
            gathering.wait_for(len(results))
        gathering.let_go_of(8)
        assert [result.result(10) for result in results] == [-number for number in range(8)]
    assert numbers == [0, 1, 3, 4, 6, 7, 2, 5]
    assert len(set(map(id, transactions))) == 2


def test_a_failing_write_does_not_spoil_its_neighbours(database: SQLite) -> None:
    database.write(insert(1))

    def insert_all(transaction: Transaction, numbers: list[int]) -> list[int]:
        done = [insert(number)(transaction) for number in numbers]
        if 50 in numbers:
            raise ValueError("a mistake of ours")
        return done

    gathering = Gathering(database)
    threading.Thread(target=gathering.let_go_of, args=[4]).start()
    outcomes = in_threads(
        [partial(database.write_together, insert_all, number) for number in (2, 50, 1, 3)]
    )
    assert [outcomes[0], outcomes[3]] == [1, 1]
    assert isinstance(outcomes[1], ValueError)
    assert isinstance(outcomes[2], sqlite3.IntegrityError)
    assert stored(database) == [1, 2, 3]


def test_a_write_that_fails_alone_leaves_nothing_and_the_next_one_succeeds(
    database: SQLite,
) -> None:
    def half(transaction: Transaction) -> None:
        insert(1)(transaction)
        raise KeyError

    with pytest.raises(KeyError):
        database.write(half)
    database.write(insert(2))
    assert stored(database) == [2]


def test_a_read_never_waits_for_a_writer(database: SQLite, path: Path) -> None:
    database.write(insert(1))
    with Child(LOCKING, path) as child:
        assert child.line() == "locked"
        assert stored(database) == [1]  # without the row that is not committed
        child.tell()
        assert child.line() == "free"


def test_a_writer_never_waits_for_a_read(database: SQLite) -> None:
    def count(transaction: Transaction) -> tuple[int, int]:
        before = len(transaction.all("select id from probe"))
        in_threads([lambda: database.write(insert(1))])
        return before, len(transaction.all("select id from probe"))

    assert database.read(count) == (0, 1)


def test_now_is_the_time_of_the_clock_that_was_given(path: Path) -> None:
    with closing(SQLite(str(path), durable=False, clock=lambda: 1234.5)) as database:
        row = database.write(
            lambda transaction: transaction.one("select :now as time, :a as a", a=1)
        )
        assert row == {"time": 1234.5, "a": 1}
        assert database.read(lambda transaction: transaction.now()) == 1234.5


def test_a_commit_rings_and_a_failure_does_not(database: SQLite, path: Path) -> None:
    def rings(transaction: Transaction) -> None:
        transaction.ring()

    def rings_and_fails(transaction: Transaction) -> None:
        transaction.ring()
        raise KeyError

    stop = os.pipe()
    listener = BellListener(path)

    def is_rung(timeout: float) -> bool:
        started = time.monotonic()
        listener.wait(timeout, stop[0])
        return time.monotonic() - started < timeout

    with pytest.raises(KeyError):
        database.write(rings_and_fails)
    assert not is_rung(0.1)
    database.write(rings)
    assert is_rung(30)
    listener.close()
    os.close(stop[0])
    os.close(stop[1])


# --- other processes ------------------------------------------------------------------------------


def test_a_killed_process_loses_nothing_that_was_committed(path: Path) -> None:
    with Child(KILLED, path) as child:
        assert child.end() == -9
    with closing(SQLite(str(path), durable=True)) as database:
        assert stored(database) == [1]


@pytest.mark.slow
def test_ten_processes_may_open_a_new_file_at_once(path: Path) -> None:
    with ExitStack() as stack:
        children = [stack.enter_context(Child(OPENING, path, number)) for number in range(10)]
        assert [child.line() for child in children] == ["ready"] * 10
        for child in children:
            child.tell()
        assert [child.line() for child in children] == ["written"] * 10
    with closing(SQLite(str(path), durable=True)) as database:
        assert stored(database) == list(range(10))


@pytest.mark.slow
def test_the_log_is_written_back_while_several_processes_write_without_a_pause(path: Path) -> None:
    SQLite(str(path), durable=False).close()
    with Child(BUSY, path) as one, Child(BUSY, path) as other:
        assert [one.line(), other.line()] == ["written"] * 2
        frames = path.with_name(f"{path.name}-wal").stat().st_size / (databases.PAGE_SIZE + 24)
    assert frames < 8 * databases.CHECKPOINT_WRITES


def test_while_another_process_holds_the_lock_all_writes_fail_together(
    database: SQLite, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "LOCK_SECONDS", 0.5)
    with Child(LOCKING, path) as child:
        assert child.line() == "locked"
        started = time.monotonic()
        outcomes = in_threads([partial(database.write, insert(number)) for number in range(8)])
        assert time.monotonic() - started < 8 * 0.5  # not one after the other
        assert all(isinstance(outcome, DatabaseUnavailable) for outcome in outcomes)
        assert {str(outcome) for outcome in outcomes} == {f"database {path}: database is locked"}
        child.tell()
        assert child.line() == "free"
        database.write(insert(100))
        assert stored(database) == [100]


def test_a_lock_that_ends_in_time_is_waited_for(database: SQLite, path: Path) -> None:
    with Child(LOCKING, path) as child:
        assert child.line() == "locked"
        writing = threading.Thread(target=database.write, args=[insert(1)])
        writing.start()
        child.tell()
        writing.join()
        assert stored(database) == [1]


def test_a_locked_file_can_not_be_opened(
    path: Path, database: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "LOCK_SECONDS", 0.1)
    with Child(LOCKING, path) as child:
        assert child.line() == "locked"
        assert open_error(path) == "database is locked"


# --- the file -------------------------------------------------------------------------------------


def test_a_full_disk_refuses_the_write_keeps_the_rest_and_harms_only_as_long_as_it_is_full(
    path: Path,
) -> None:
    with Child(FULL, path) as child:
        assert child.line() in (
            f"database {path}: disk I/O error",
            f"database {path}: database or disk is full",
        )
        assert child.line() == "['before']"
        assert child.line() == "['before', 'later']"
        assert child.end() == 0


def test_the_files_are_for_their_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(SQLite(str(path), durable=True)) as database:
            database.write(insert(1))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"jobs.sqlite3": 0o600, "jobs.sqlite3-wal": 0o600, "jobs.sqlite3-shm": 0o600}


def test_the_mode_of_a_file_that_is_there_is_the_owners_choice(path: Path) -> None:
    path.touch()
    path.chmod(0o640)
    SQLite(str(path), durable=True).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_path_may_be_deep_and_of_any_signs(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 120) / ("b" * 120) / "jobs?mode=ro&%20#é [x]*.sqlite3"
    path.parent.mkdir(parents=True)
    with closing(SQLite(str(path), durable=True)) as database:
        database.write(insert(1))
        assert stored(database) == [1]
        assert path.exists()


def test_a_file_of_something_else_is_left_as_it_is(path: Path) -> None:
    path.write_text("Dear diary\n" * 1000)
    assert open_error(path) == "file is not a database"
    assert path.read_text() == "Dear diary\n" * 1000


@pytest.mark.parametrize("table", ["notes (id integer)", "schema_version (version integer)"])
def test_another_programs_database_is_left_as_it_is(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"create table {table}")
    assert open_error(path) == "belongs to another program"
    with closing(sqlite3.connect(path)) as connection:
        assert [row[0] for row in connection.execute("select sql from sqlite_master")] == [
            f"CREATE TABLE {table}"
        ]


def test_a_newer_schema_is_refused(path: Path, database: SQLite) -> None:
    database.write(lambda transaction: transaction.run("update schema_version set version = 99"))
    assert open_error(path).startswith("schema 99 of a newer md5light (this one knows ")


def test_a_database_of_the_first_schema_is_upgraded_with_all_its_rows(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST_SCHEMA.read_text())
    check_upgraded(str(path))


def test_a_place_where_no_file_can_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert open_error(tmp_path / "none" / "jobs.sqlite3") == "No such file or directory"
    assert open_error(tmp_path / "file" / "jobs.sqlite3") == "Not a directory"
    assert open_error(tmp_path) == "unable to open database file"


def test_an_engine_that_is_not_there_is_told_without_the_password() -> None:
    with pytest.raises(DatabaseError, match=r"^database postgresql://127\.0\.0\.1/md5: ") as caught:
        open_database("postgresql://md5:hunter2@127.0.0.1:1/md5", durable=True)
    assert "hunter2" not in str(caught.value)


def replace_by_copy(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)


REPLACEMENTS: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "replaced": replace_by_copy,
    "log deleted": lambda path: path.with_name(f"{path.name}-wal").unlink(),
    "folder moved": lambda path: path.parent.rename(path.parent.with_name("moved")),
}


@pytest.mark.parametrize("replace", REPLACEMENTS.values(), ids=REPLACEMENTS.keys())
def test_nothing_is_written_to_or_read_from_a_file_that_is_no_longer_there(
    tmp_path: Path, replace: Callable[[Path], object]
) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "jobs.sqlite3"
    with closing(SQLite(str(path), durable=True)) as database:
        database.write(insert(1))
        assert not database.replaced
        replace(path)
        for _ in range(2):
            with pytest.raises(DatabaseReplaced, match="deleted or replaced"):
                database.write(insert(2))
            with pytest.raises(DatabaseReplaced):
                stored(database)
        assert database.replaced


def test_a_file_behind_a_link_is_the_file_that_counts(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "jobs.sqlite3"
    link.symlink_to(tmp_path / "real" / "jobs.sqlite3")
    SQLite(str(tmp_path / "real" / "jobs.sqlite3"), durable=True).close()
    with closing(SQLite(str(link), durable=True)) as database:
        database.write(insert(1))
        assert stored(database) == [1]


def test_opening_without_migrating_changes_nothing(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST_SCHEMA.read_text())
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match=f"has schema 1, not {VERSION} as this program: start"):
        open_database(str(path), durable=True, migrate=False)
    path.write_bytes(before)
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(DatabaseError, match="No such file"):
        open_database(str(path.with_name("none")), durable=True, migrate=False)
    assert list(path.parent.iterdir()) == [path]
    check_upgraded(str(path))
    with closing(open_database(str(path), durable=True, migrate=False)) as database:
        database.write(insert(1))


@pytest.mark.parametrize(
    ("version", "problem"), [(99, "it is of a newer md5light"), (0, "start md5light-server")]
)
def test_looking_at_another_schema_says_which_is_needed(
    path: Path, version: int, problem: str
) -> None:
    SQLite(str(path), durable=True).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("update schema_version set version = ?", [version])
    with pytest.raises(DatabaseError, match=f"has schema {version}, not {VERSION} .*: {problem}"):
        open_database(str(path), durable=True, migrate=False)


def fill_and_purge(database: SQLite) -> None:
    """Store jobs of some size that ended long ago, and remove them."""
    ended = """
        insert into jobs (id, url, host, status, max_attempts, created_at, finished_at)
        values (:id, :url, 'a', 'canceled', 5, 1, 1)
    """
    rows = [{"id": f"{number}", "url": "x" * 1000} for number in range(3000)]
    database.write(lambda transaction: transaction.run_many(ended, rows))
    queue = Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=10)
    while queue.purge(3600):
        pass


@pytest.mark.slow
def test_a_new_file_shrinks_with_its_jobs_and_an_old_one_when_it_is_compacted(path: Path) -> None:
    with closing(SQLite(str(path), durable=False)) as database:
        fill_and_purge(database)
    assert path.stat().st_size < 300_000
    old = path.with_name("old.sqlite3")
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(FIRST_SCHEMA.read_text())
    with closing(SQLite(str(old), durable=False)) as database:
        fill_and_purge(database)
        assert database.compact() > 2_000_000
        assert old.stat().st_size < 200_000
        fill_and_purge(database)
        database.write(insert(1))
        pages = database.read(lambda transaction: transaction.one("pragma page_count"))
        assert pages
        assert pages["page_count"] < 150


def test_files_made_by_root_belong_to_the_owner_of_their_folder(path: Path) -> None:
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(path.parent, owner, -1)
    listener = BellListener(path)
    with closing(SQLite(str(path), durable=True)) as database:
        database.write(insert(1))
        owners = {file.name: file.stat().st_uid for file in path.parent.iterdir()}
    listener.close()
    bell = f"jobs.sqlite3-bell-{os.getpid()}"
    files = ("jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm", bell)
    assert owners == dict.fromkeys(files, owner)


def test_a_broken_file_is_told_as_unavailable(path: Path) -> None:
    with closing(SQLite(str(path), durable=True)) as database:
        database.write(insert(1))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    with closing(SQLite(str(path), durable=True)) as database:
        path.write_bytes(content)
        with pytest.raises(DatabaseUnavailable):
            database.read(lambda transaction: transaction.all("select * from jobs where id = 'a'"))


def test_a_closed_database_and_a_refused_one_hold_no_descriptor(path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    with closing(SQLite(str(path), durable=True)) as database:
        database.write(insert(1))
        in_threads([lambda: stored(database) for _ in range(5)])
        database.write(
            lambda transaction: transaction.run("update schema_version set version = 99")
        )
        assert descriptors() > before
    assert descriptors() == before
    with pytest.raises(DatabaseError) as refused:
        SQLite(str(path), durable=True)
    assert descriptors() == before
    assert refused.tb is not None  # which would keep alive what was not closed


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 1)])
def test_every_commit_is_synchronous_only_where_that_is_asked_for(
    path: Path, durable: bool, synchronous: int
) -> None:
    with closing(SQLite(str(path), durable=durable)) as database:
        for run in (database.read, database.write):
            row = run(lambda transaction: transaction.one("pragma synchronous"))
            assert row == {"synchronous": synchronous}
        assert database.read(lambda transaction: transaction.one("pragma journal_mode")) == {
            "journal_mode": "wal"
        }
