"""What only a server database does: many machines share it, and it goes away and comes back."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import requests

from md5light.download.failures import of_host
from md5light.errors import DatabaseError, DatabaseUnavailable, Failure, TemporaryFailure
from md5light.job import Hashed, Job
from md5light.queue import listen, open_database
from md5light.queue.database import Database, Transaction
from md5light.queue.jobs import Queue
from md5light.queue.postgresql import CONNECTIONS
from tests.child import Child
from tests.command import run
from tests.fire import kill_alone
from tests.gathering import Gathering
from tests.origin import Origin, Peer
from tests.postgresql import Emptied, PostgreSQLServer, pgbouncer, waits_for_a_lock
from tests.proxy import Proxy
from tests.service import Service
from tests.upgrade import FIRST_SCHEMA, VERSION, check_upgraded
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

URL = "http://files.example.com/a"
HASHED = Hashed("f4afe93ad799484b1d512cc20e93efd1", 7, URL, None, None, None)

#: opens a new database and writes to it in ten processes at once
OPENING = """
import multiprocessing, sys
from md5light.queue import open_database, postgresql
from md5light.queue.jobs import Queue
context = multiprocessing.get_context("fork")
together = context.Barrier(10)
def write():
    together.wait()
    database = open_database(sys.argv[1], durable=True)
    queue = Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=1)
    queue.submit("http://a/b", "a")
processes = [context.Process(target=write) for _ in range(10)]
for process in processes:
    process.start()
for process in processes:
    process.join()
"""

TERMINATE = """
    select pid from (
        select pid from pg_stat_activity
        where application_name = 'md5light' and datname = current_database()
        order by random() limit %s) as chosen
    where pg_terminate_backend(pid)
"""

ALIVE = "select pid from pg_stat_activity where pid = any(%s)"

#: what a session that others get next must not keep
LEFT_BEHIND = """
    select name from pg_prepared_statements union all select pg_listening_channels()
    union all select objid::text from pg_locks where locktype = 'advisory'
        and database = (select oid from pg_database where datname = current_database())
    union all select name from pg_settings
        where source = 'session' and name in ('synchronous_commit', 'lock_timeout')
"""

#: cancels what each other session of the database runs just now
CANCEL = """
    select pg_cancel_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
"""

SESSIONS = """
    select count(*) from pg_stat_activity
    where datname = current_database() and usename = 'md5light' and pid <> pg_backend_pid()
"""

WITHOUT_PSYCOPG = (
    "import sys; sys.modules['psycopg'] = None; from md5light.cli import server; server()"
)


@pytest.fixture
def new_location(postgresql: PostgreSQLServer) -> Iterator[str]:
    """A database without any table."""
    with postgresql.database() as location:
        yield location


@pytest.fixture
def location(emptied: Emptied) -> str:
    return emptied.lend()


@pytest.fixture
def database(location: str) -> Iterator[Database]:
    with closing(open_database(location, durable=True)) as database:
        yield database


def make_queue(database: Database) -> Queue:
    return Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=1)


def machine(folder: Path, database: str, **queue: object) -> Service:
    """Give a machine of its own, with everything but the database in its own folder."""
    folder.mkdir()
    return Service(folder, queue={"database": database, **queue})


def start(*services: Service) -> None:
    """Start a server and a pool of each."""
    with ThreadPoolExecutor() as threads:
        for work in (Service.start_server, Service.start_pool):
            list(threads.map(work, services))


def submit_patiently(service: Service, url: str, **fields: str) -> str:
    """Submit until the database can be written."""

    def accepted() -> str | None:
        answer = requests.post(f"{service.url}/submit", data={"url": url, **fields}, timeout=40)
        assert answer.status_code in (202, 503), answer.text
        job_id: str | None = answer.json().get("id")
        return job_id

    return str(wait_until(accepted))


def terminate(location: str, *, at_most: int) -> None:
    """Cut sessions of md5light, whatever they are doing."""
    with psycopg.connect(location, autocommit=True) as connection:
        cut = [pid for (pid,) in connection.execute(TERMINATE, [at_most])]
        wait_until(lambda: not connection.execute(ALIVE, [cut]).fetchall())


def in_threads(work: Callable[[], object], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_its_clock_is_the_database_s(database: Database) -> None:
    now = database.write(lambda transaction: transaction.now())
    assert abs(now - time.time()) < 60
    assert database.read(lambda transaction: transaction.now()) >= now


def test_submissions_are_durable_and_workers_notes_need_not_be(location: str) -> None:
    for durable, setting in ((True, "on"), (False, "off")):
        with closing(open_database(location, durable=durable)) as database:
            row = database.write(lambda transaction: transaction.one("show synchronous_commit"))
            assert row == {"synchronous_commit": setting}


def test_threads_take_turns_on_few_connections(database: Database, location: str) -> None:
    queue = make_queue(database)
    in_threads(lambda: [queue.submit(URL, "files.example.com") for _ in range(5)], 20)
    with psycopg.connect(location) as watching:
        counted = watching.execute(
            "select count(*) from pg_stat_activity"
            " where application_name = 'md5light' and datname = current_database()"
        )
        assert 0 < counted.fetchall()[0][0] <= CONNECTIONS


def test_ten_processes_may_open_a_new_database_at_once(new_location: str) -> None:
    with Child(OPENING, new_location) as child:
        assert child.process.communicate(timeout=30)[0] == ""
    with psycopg.connect(new_location) as connection:
        assert connection.execute("select count(*) from jobs").fetchall() == [(10,)]


def test_a_newer_schema_and_a_foreign_database_are_refused(new_location: str) -> None:
    with psycopg.connect(new_location, autocommit=True) as connection:
        connection.execute("create table accounts (id bigint)")
        with pytest.raises(DatabaseError, match="belongs to another program"):
            open_database(new_location, durable=True)
        connection.execute("drop table accounts")
        open_database(new_location, durable=True).close()
        connection.execute("update schema_version set version = 99")
        with pytest.raises(DatabaseError, match="schema 99 of a newer md5light"):
            open_database(new_location, durable=True)


def test_a_database_of_the_first_schema_is_upgraded_with_all_its_rows(new_location: str) -> None:
    with psycopg.connect(new_location, autocommit=True) as connection:
        for statement in FIRST_SCHEMA.read_text().split(";\n"):
            connection.execute(statement)
    check_upgraded(new_location)


def test_without_psycopg_one_line_says_what_to_install(tmp_path: Path) -> None:
    config = tmp_path / "config.ini"
    config.write_text("[queue]\ndatabase = postgresql://127.0.0.1:1/md5\n")
    command = [sys.executable, "-c", WITHOUT_PSYCOPG, "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "pip install 'md5light[postgres]'" in ended.stderr


def test_a_server_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    service = Service(tmp_path, queue={"database": "postgresql://md5:hunter2@127.0.0.1:1/md5"})
    for function in ("server", "worker"):
        command = service.start(function)
        assert command.process.wait(30) == 1
        assert command.lines.count("\n") == 1
        assert "database postgresql://127.0.0.1/md5" in command.lines
        assert "hunter2" not in command.lines


def stranger(location: str, setup: str) -> Iterator[str]:
    """Make a role without any right for the block, after `setup`; yields its location."""
    role = f"role{uuid.uuid4().hex}"
    with psycopg.connect(location, autocommit=True) as connection:
        connection.execute(f"create role {role} login password 'hunter2'")
        for statement in filter(str.strip, setup.format(role=role).split(";")):
            connection.execute(statement)
        yield location.replace("//md5light@", f"//{role}:hunter2@")
        connection.execute(f"drop owned by {role}")
        connection.execute(f"drop role {role}")


REFUSALS = {
    "no right in the schema": (
        "revoke create on schema public from public",
        "",
        r"role\w+ may not create tables in schema public; ALTER DATABASE test\w+ OWNER TO role\w+$",
    ),
    "no such schema": (
        "",
        "?options=-csearch_path%3Dnone",
        r"no schema of its search_path exists, or may be used; CREATE SCHEMA … AUTHORIZATION role",
    ),
    "tables of another user": (
        "create table schema_version (version bigint); create table jobs (id bigint)",
        "",
        r"permission denied for table schema_version; REASSIGN OWNED BY … TO role\w+$",
    ),
    "read-only": (
        "grant all on schema public to {role}",
        "?options=-cdefault_transaction_read_only%3Don",
        r"is read-only; name the primary server, or add \?target_session_attrs=read-write$",
    ),
}


@pytest.mark.parametrize(("setup", "options", "problem"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_at_the_start_is_one_line_that_says_what_to_do(
    new_location: str, setup: str, options: str, problem: str
) -> None:
    looking = (True, False) if "read-only" not in problem else (True,)  # a standby can be read
    with contextmanager(stranger)(new_location, setup) as its_location:
        for migrate in looking:
            with pytest.raises(DatabaseError, match=problem) as refused:
                open_database(its_location + options, durable=True, migrate=migrate)
            message = str(refused.value)
            assert message.startswith("database postgresql://127.0.0.1/test")
            assert "\n" not in message
            assert "hunter2" not in message


def test_config_check_makes_no_table(new_location: str, tmp_path: Path) -> None:
    def check(database: str) -> tuple[int, str]:
        done = run("md5light", "config", "check", cwd=tmp_path, MD5LIGHT_QUEUE_DATABASE=database)
        assert done.stderr.count("\n") == 1
        assert "hunter2" not in done.stderr
        return done.returncode, done.stderr

    code, told = check(new_location)
    assert code == 0
    assert ": has schema 0, not " in told
    with psycopg.connect(new_location) as connection:
        tables = connection.execute("select * from pg_tables where schemaname = 'public'")
        assert tables.fetchall() == []
    revoke = "revoke create on schema public from public"
    with contextmanager(stranger)(new_location, revoke) as its_location:
        code, told = check(its_location)
        assert code == 78
        assert told.startswith("md5light: MD5LIGHT_QUEUE_DATABASE: [queue] database postgresql://")
        assert "may not create tables in schema public; ALTER DATABASE" in told


def test_a_database_of_another_encoding_is_refused(postgresql: PostgreSQLServer) -> None:
    for encoding in ("SQL_ASCII", "LATIN1"):
        name = f"test{uuid.uuid4().hex}"
        with psycopg.connect(postgresql.location(), autocommit=True) as connection:
            connection.execute(f"create database {name} encoding '{encoding}' template template0")
            problem = f"its encoding is {encoding}, not UTF8; make another one: CREATE DATABASE"
            with pytest.raises(DatabaseError, match=problem):
                open_database(postgresql.location(name), durable=True)
            connection.execute(f"drop database {name}")


LOSSES = {
    "rights": (
        "alter table jobs owner to {other}; alter table probe owner to {other}",
        "alter table jobs owner to {role}; alter table probe owner to {role}",
    ),
    "table": ("alter table jobs rename to gone", "alter table gone rename to jobs"),
    "schema": ("alter schema public rename to gone", "alter schema gone rename to public"),
}


@pytest.mark.parametrize(("lose", "restore"), LOSSES.values(), ids=LOSSES.keys())
def test_rights_and_tables_that_are_gone_for_a_while_are_an_outage(
    new_location: str, lose: str, restore: str
) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(contextmanager(stranger)(new_location, ""))
        other_role = urlsplit(other).username or ""
        its_location = stack.enter_context(
            contextmanager(stranger)(new_location, "grant all on schema public to {role}")
        )
        role = urlsplit(its_location).username or ""
        database = stack.enter_context(closing(open_database(its_location, durable=True)))
        queue = make_queue(database)
        job_id = queue.submit(URL, "files.example.com")
        with psycopg.connect(new_location, autocommit=True) as connection:
            connection.execute(lose.format(other=other_role))
            for work in (
                lambda: queue.submit(URL, "files.example.com"),
                lambda: queue.get(job_id),
                lambda: queue.claim("w1"),
                queue.probe,
            ):
                with pytest.raises(
                    DatabaseUnavailable, match=r"^database postgresql://127"
                ) as told:
                    work()
                assert "hunter2" not in str(told.value)
            connection.execute(restore.format(role=role))
        assert queue.get(job_id)
        assert queue.submit(URL, "files.example.com")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secretpw%zz@h/db",
        "postgresql://u:p@secretpw#w/rd@h/db",
        "postgresql://u:secretpw@h/db?sslmod=require",
        "postgresql://u:secret/pw@h/db",
    ],
)
def test_a_url_that_libpq_would_quote_is_refused_without_its_text(url: str) -> None:
    with pytest.raises(DatabaseError, match=r"^database postgresql://…: ") as refused:
        open_database(url, durable=True)
    assert "secret" not in str(refused.value)


def test_a_canceled_begin_costs_one_write_and_no_more(database: Database, location: str) -> None:
    """The statement times out between begin and the time of the transaction."""
    queue = make_queue(database)
    queue.submit(URL, "files.example.com")
    begin = database._begin  # type: ignore[attr-defined]
    for slow in ("select pg_sleep(30)", "set local statement_timeout = 50; select pg_sleep(30)"):
        database._begin = begin.replace("begin;", f"begin; {slow};")  # type: ignore[attr-defined]
        with ThreadPoolExecutor() as threads, psycopg.connect(location, autocommit=True) as other:
            broken = threads.submit(queue.submit, URL, "files.example.com")
            wait_until(lambda: broken.done() or not other.execute(CANCEL))  # noqa: B023
            with pytest.raises(DatabaseUnavailable):
                broken.result(30)
        database._begin = begin  # type: ignore[attr-defined]
        for _ in range(CONNECTIONS + 1):
            assert queue.get(queue.submit(URL, "files.example.com"))


def test_looking_changes_nothing(new_location: str) -> None:
    with pytest.raises(DatabaseError, match=f"has schema 0, not {VERSION} as this program: start"):
        open_database(new_location, durable=True, migrate=False)
    with psycopg.connect(new_location) as connection:
        tables = connection.execute("select 1 from pg_tables where schemaname = 'public'")
        assert tables.fetchall() == []
    open_database(new_location, durable=True).close()
    open_database(new_location, durable=True, migrate=False).close()


def test_connections_that_were_cut_are_replaced_at_once(database: Database, location: str) -> None:
    queue = make_queue(database)
    in_threads(lambda: queue.submit(URL, "files.example.com"), CONNECTIONS)
    terminate(location, at_most=CONNECTIONS)
    job_id = queue.submit(URL, "files.example.com")
    assert queue.get(job_id)
    assert queue.claim("w1")


def test_a_write_cut_in_its_middle_was_not_stored(database: Database, location: str) -> None:
    def cut(transaction: object) -> None:
        sql = "insert into probe values (7, 0)"
        transaction.run(sql)  # type: ignore[attr-defined]
        terminate(location, at_most=CONNECTIONS)

    with pytest.raises(DatabaseUnavailable, match=r"^database postgresql://127"):
        database.write(cut)
    assert database.read(lambda transaction: transaction.all("select * from probe")) == []


def test_a_deadlock_is_run_again(location: str) -> None:
    meeting = threading.Barrier(2, timeout=10)

    def cross(first: str, second: str) -> None:
        tries: list[int] = []

        def work(transaction: Transaction) -> None:
            tries.append(1)
            transaction.run("set local deadlock_timeout = '50ms'")
            transaction.lock([first])
            if len(tries) == 1:
                meeting.wait()
            transaction.lock([second])

        with closing(open_database(location, durable=True)) as database:
            database.write(work)
        done.append(len(tries))

    done: list[int] = []
    threads = [threading.Thread(target=cross, args=names) for names in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [1, 2]


@pytest.mark.parametrize("shared", [False, True])
def test_a_settle_that_is_the_victim_of_a_deadlock_is_run_again(
    database: Database, location: str, shared: bool
) -> None:
    """Another transaction holds the lock of the job's second host and waits for its first one."""
    queue = Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=1, per_host=5)
    for host in ("a", "b"):
        queue.submit(f"http://{host}/a", host)
    jobs = [queue.claim("w1"), queue.claim("w1")]
    blocked = threading.Event()

    def cross(transaction: Transaction) -> None:
        transaction.run("set local deadlock_timeout = '60s'")  # the other one is the victim
        transaction.run("update jobs set etag = 'x' where host = 'a'")
        blocked.set()
        wait_until(lambda: waits_for_a_lock(location))
        transaction.lock(["host a"])

    with (
        closing(open_database(location, durable=True)) as elsewhere,
        ThreadPoolExecutor() as threads,
    ):
        crossing = threads.submit(elsewhere.write, cross)
        assert blocked.wait(30)
        gathering = Gathering(database) if shared else None
        settled = [threads.submit(queue.settle, job, HASHED) for job in jobs[: 1 + shared] if job]
        if gathering:
            gathering.let_go_of(2)
        assert [each.result(30) for each in settled] == [("done", None)] * (1 + shared)
        crossing.result(30)


@contextmanager
def host_a_shared(location: str) -> Iterator[None]:
    """Another transaction shares the lock of host a during the block."""
    locked, may_go = threading.Event(), threading.Event()

    def hold(transaction: Transaction) -> None:
        transaction.lock(["host a"], shared=["host a"])
        locked.set()
        assert may_go.wait(30)

    other = closing(open_database(location, durable=True))
    with other as elsewhere, ThreadPoolExecutor() as threads:
        holding = threads.submit(elsewhere.write, hold)
        assert locked.wait(30)
        try:
            yield
        finally:
            may_go.set()
            holding.result(30)


def two_running(queue: Queue) -> list[Job]:
    """Submit three jobs of host a, and claim two of them."""
    for number in range(3):
        queue.submit(f"http://a/{number}", "a")
    return [job for job in (queue.claim("w1"), queue.claim("w1")) if job]


def settled_after_the_lock(
    queue: Queue, job: Job, outcome: Hashed | Failure, location: str
) -> tuple[str, Job | None]:
    """Settle a job while another transaction shares the lock of its host, and must wait for it."""
    with ThreadPoolExecutor() as threads:
        with host_a_shared(location):
            settling = threads.submit(queue.settle, job, outcome)
            wait_until(lambda: waits_for_a_lock(location))
        return settling.result(30)


def a_word() -> Failure:
    return of_host(TemporaryFailure("http_status", "The server answered with status 503."))


def test_without_a_limit_good_outcomes_of_a_host_do_not_wait_for_each_other(
    database: Database, location: str
) -> None:
    queue = Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=1)
    first, second = two_running(queue)
    with host_a_shared(location):
        status, third = queue.settle(first, HASHED, claim_next=True)
        assert (status, third and third.url) == ("done", "http://a/2")
        assert queue.settle(second, HASHED) == ("done", None)


def test_with_a_limit_they_do(database: Database, location: str) -> None:
    queue = Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=1, per_host=8)
    first, _ = two_running(queue)
    assert settled_after_the_lock(queue, first, HASHED, location) == ("done", None)


def test_a_hosts_word_waits_for_other_outcomes(database: Database, location: str) -> None:
    queue = Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=1)
    first, _ = two_running(queue)
    assert settled_after_the_lock(queue, first, a_word(), location) == ("queued", None)
    (host,) = queue.hosts(10)
    assert (host.host, host.running) == ("a", 1)


def test_a_process_that_has_not_heard_of_a_hosts_trouble_notices_it(
    database: Database, location: str
) -> None:
    queue = Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=1)
    first, second = two_running(queue)
    with closing(open_database(location, durable=True)) as its_database:
        other = Queue(its_database, lease_seconds=60, max_attempts=3, retry_seconds=1)
        assert other.settle(first, a_word()) == ("queued", None)
    assert settled_after_the_lock(queue, second, HASHED, location) == ("done", None)


def test_a_job_of_a_host_in_trouble_is_left_to_those_who_have_its_lock_alone(
    database: Database, location: str
) -> None:
    queue = Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=1)
    queue.submit("http://b/1", "b")
    running = queue.claim("w1")
    first, _ = two_running(queue)
    with closing(open_database(location, durable=True)) as its_database:
        other = Queue(its_database, lease_seconds=60, max_attempts=3, retry_seconds=1)
        other.settle(first, a_word())
    queue.submit("http://a/new", "a")
    due = "select count(*) as jobs from jobs where host = 'a' and due_at <= :now and token is null"
    assert running
    with host_a_shared(location):
        assert queue.settle(running, HASHED, claim_next=True) == ("done", None)
        assert database.read(lambda transaction: transaction.all(due)) == [{"jobs": 1}]
    assert queue.claim("w1") is None
    assert database.read(lambda transaction: transaction.all(due)) == [{"jobs": 0}]


def test_a_write_that_waits_for_a_lock_keeps_none_waiting_that_came_before(
    database: Database, location: str
) -> None:
    locked, may_go = threading.Event(), threading.Event()

    def hold(transaction: Transaction) -> None:
        transaction.lock(["a host"])
        locked.set()
        assert may_go.wait(30)

    def write(lock: str, probe: int) -> None:
        def work(transaction: Transaction) -> None:
            transaction.lock([lock])
            transaction.run("insert into probe values (:id, 0)", id=probe)

        database.write(work)

    other = closing(open_database(location, durable=True))
    with other as elsewhere, ThreadPoolExecutor() as threads:
        holding = threads.submit(elsewhere.write, hold)
        assert locked.wait(30)
        gathering = Gathering(database)
        earlier = threads.submit(write, "another host", 1)
        gathering.wait_for(1)
        later = threads.submit(write, "a host", 2)
        gathering.let_go_of(2)
        earlier.result(4)
        assert not later.done()
        may_go.set()
        holding.result(30)
        later.result(30)
    ids = database.read(lambda transaction: transaction.all("select id from probe order by id"))
    assert ids == [{"id": 1}, {"id": 2}]


def test_a_submission_wakes_a_listener(database: Database, location: str) -> None:
    queue = make_queue(database)
    listener = listen(location)
    read, write = os.pipe()
    listener.wait(0.01, read)
    submitting = threading.Thread(target=queue.submit, args=[URL, "files.example.com"])
    started = time.monotonic()
    submitting.start()
    listener.wait(30, read)
    assert time.monotonic() - started < 20
    submitting.join()
    listener.close()
    os.close(read)
    os.close(write)


def test_many_machines_lose_nothing_while_pools_and_sessions_are_killed(
    location: str, tmp_path: Path
) -> None:
    with Origin() as origin, ExitStack() as stack:
        machines = [
            stack.enter_context(machine(tmp_path / name, location, lease_seconds=2))
            for name in ("one", "other")
        ]
        start(*machines)
        jobs = {}
        for number in range(120):
            body = b"file %d" % number
            url = origin.serve(f"/{number}", body)
            job_id = submit_patiently(machines[number % 2], url, email=f"n{number}@localhost")
            jobs[job_id] = hashlib.md5(body).hexdigest()
            if number % 5 == 0:
                terminate(location, at_most=2)
            if number in (30, 60, 90):
                service = machines[number // 30 % 2]
                kill_alone(service.commands[-1])
                service.start_pool()
        for job_id, md5 in jobs.items():
            assert machines[0].result(job_id, timeout=60)["md5"] == md5
        machines[1].wait_for_mails(jobs)


def test_the_database_goes_away_and_comes_back(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        closing(PostgreSQLServer()) as server,
        Service(tmp_path, queue={"database": server.location()}) as service,
    ):
        start(service)
        first = service.submit(origin.serve("/first", b"first"))
        assert service.result(first)["status"] == "done"
        server.stop()
        check_refusal(service)
        assert requests.get(f"{service.url}/readyz", timeout=20).status_code == 503
        service.commands[-1].wait_for_line("event=database_unavailable")
        server.start()
        second = service.submit(origin.serve("/second", b"second"))
        assert service.result(second)["md5"] == hashlib.md5(b"second").hexdigest()
        assert service.check(first).json()["status"] == "done"


def test_a_pooler_may_stand_between(
    postgresql: PostgreSQLServer, location: str, tmp_path: Path
) -> None:
    with Origin() as origin, pgbouncer(postgresql) as port:
        pooled = location.replace(str(postgresql.port), str(port))
        with machine(tmp_path / "machine", pooled) as service:
            service.start_server()
            service.start_pool()
            urls = [origin.serve(f"/{number}", b"file %d" % number) for number in range(40)]
            jobs = [
                service.submit(url, email=f"n{number}@localhost") for number, url in enumerate(urls)
            ]
            for number, job_id in enumerate(jobs):
                assert service.result(job_id)["md5"] == hashlib.md5(b"file %d" % number).hexdigest()
            service.wait_for_mails(jobs)
            with psycopg.connect(pooled, prepare_threshold=None) as session:
                assert session.execute(LEFT_BEHIND).fetchall() == []
            with psycopg.connect(location) as watching:
                assert watching.execute(SESSIONS).fetchall()[0][0] <= 2


class EndlessAtFirst:
    """Drips a body without end to the first request, until it is given up; then a short one."""

    def __init__(self) -> None:
        self.given_up = threading.Event()

    def __call__(self, peer: Peer) -> bool:
        if peer.number > 1:
            return peer.reply(b"short")
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            peer.drip(bytes(1000000))
        finally:
            self.given_up.set()
        return False


def test_a_network_that_swallows_packets_loses_nothing(
    postgresql: PostgreSQLServer, location: str, tmp_path: Path
) -> None:
    """A machine is cut off while it downloads: another does the job, and the first goes on."""
    with Origin() as origin, Proxy(postgresql.port) as proxy, ExitStack() as stack:
        far = location.replace(str(postgresql.port), str(proxy.port))
        cut, whole = (
            stack.enter_context(machine(tmp_path / name, database, lease_seconds=2))
            for name, database in (("cut", f"{far}?connect_timeout=2"), ("whole", location))
        )
        script = EndlessAtFirst()
        start(cut)
        job_id = cut.submit(origin.serve("/endless", script))
        wait_until(lambda: cut.job(job_id)["bytes_done"])
        proxy.swallow()
        with ThreadPoolExecutor() as threads:
            refused = threads.submit(check_refusal, cut)
            start(whole)
            assert whole.result(job_id)["md5"] == hashlib.md5(b"short").hexdigest()
            refused.result(60)
        whole.commands[-1].stop()
        assert not script.given_up.is_set()
        proxy.forward()
        assert script.given_up.wait(30)
        wait_until(lambda: requests.get(f"{cut.url}/readyz", timeout=40).status_code == 200)
        after = [cut.submit(origin.serve(f"/{number}", b"after")) for number in range(8)]
        assert {cut.result(each)["status"] for each in after} == {"done"}
        assert whole.check(job_id).json()["md5"] == hashlib.md5(b"short").hexdigest()


def check_refusal(service: Service) -> None:
    """Submit where the database can't be reached: that is told, and within its time."""
    begun = time.monotonic()
    answer = requests.post(f"{service.url}/submit", data={"url": URL}, timeout=40)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable")
    assert answer.headers["Retry-After"]
    assert time.monotonic() - begun < 30
