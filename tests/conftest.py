"""What several test modules need: a queue on a clock of its own, and a browser."""

from __future__ import annotations

import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from md5light.queue import open_database
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from tests.downloads import Fetch, downloading
from tests.environments import Prepared, prepare
from tests.once import Once
from tests.origin import Origin
from tests.postgresql import Emptied, PostgreSQLServer, start_server
from tests.service import Service
from tests.states import States

if TYPE_CHECKING:  # a browser takes its time to be imported, and few tests need one
    from playwright.sync_api import Browser

    from tests.browser import Open


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the modules and thousands of tests, which stay, out of all garbage collections."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process works on alone at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (-slow[item.path], -tests[item.path], item.path))


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time

    def pass_(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def fetch() -> Iterator[Fetch]:
    """Download from loopback with short time limits."""
    with downloading() as fetch:
        yield fetch


@pytest.fixture
def empty_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no TLS context load the system's authorities: it takes 30 ms, and none is a test's."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """Share a thing with the other processes of pytest-xdist, whose folders have one parent."""
    folder = tmp_path_factory.getbasetemp()
    return Once(folder if worker_id == "master" else folder.parent)


@pytest.fixture(scope="session")
def prepared(once: Once) -> Prepared:
    """A Python for scripts/venv and scripts/install; see tests/environments.py."""
    return once("environments", lambda: prepare(once.folder / "environments"))


@pytest.fixture(scope="session")
def postgresql(once: Once) -> PostgreSQLServer:
    """The server of the whole run: a test that stops its server makes one of its own."""
    return once("postgresql", lambda: start_server(once.run))


@pytest.fixture(scope="session")
def emptied(postgresql: PostgreSQLServer) -> Iterator[Emptied]:
    """A database of our schema for one test after the other."""
    with postgresql.database() as location:
        open_database(location, durable=True).close()
        yield Emptied(location)


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of our schema: a copy of it takes a third of the time of one that is set up."""
    file = tmp_path_factory.mktemp("sqlite") / "jobs.sqlite3"
    open_database(str(file), durable=True).close()
    return file


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def location(request: pytest.FixtureRequest, sqlite_file: Path, tmp_path: Path) -> str:
    """What the configuration says of a database without rows, once of each engine."""
    if request.param == "sqlite":
        return str(shutil.copy(sqlite_file, tmp_path))
    emptied: Emptied = request.getfixturevalue("emptied")
    return emptied.lend()


@pytest.fixture
def database(location: str, clock: Clock) -> Iterator[Database]:
    database = open_database(location, durable=True, clock=clock)
    yield database
    database.close()


MakeQueue = Callable[..., Queue]


@pytest.fixture
def make_queue(database: Database) -> MakeQueue:
    def make(**changed: Any) -> Queue:
        settings: dict[str, Any] = {
            "lease_seconds": 60,
            "max_attempts": 3,
            "retry_seconds": 10,
            "max_unfinished": 100_000,
            "per_host": 0,
        }
        return Queue(database, **{**settings, **changed})

    return make


@pytest.fixture
def queue(make_queue: MakeQueue) -> Queue:
    return make_queue()


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database, lease_seconds=60, retry_seconds=30, give_up_seconds=4 * 86400)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server without workers: `states` gives its jobs their states."""
    with Service(tmp_path_factory.mktemp("service")) as service:
        service.start_server()
        yield service


@pytest.fixture(scope="module")
def states(service: Service) -> Iterator[States]:
    with States(service.database) as states:
        yield states


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from tests.browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser, service: Service) -> Iterator[Open]:
    """Open a page of the test module's service, each in a new browser; see tests/browser.py."""
    from tests.browser import opening

    with opening(browser, service.url) as open_page:
        yield open_page
