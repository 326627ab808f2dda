"""A service that strangers can reach: its defaults, and what one of them can do to others."""

from __future__ import annotations

import argparse
import contextlib
import mailbox
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from md5light import admin, config
from md5light.batch import NewBatch, NewLine
from md5light.config import Config, Ports, undecided
from md5light.config.public import DEFAULTS, SOURCE
from md5light.errors import PermanentFailure, TemporaryFailure, TooMany
from md5light.job import Hashed, Job
from md5light.queue.batches import Batches
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.limits import Limits
from md5light.queue.peers import Peers
from md5light.worker.strangers import NO_ANSWER, NO_NAME, told
from tests.conftest import Clock, MakeQueue
from tests.origin import Origin, Peer, reply
from tests.service import Service, running
from tests.waiting import wait_until

#: https://fetch.spec.whatwg.org/#port-blocking
BAD_PORTS = """
    0 1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113
    115 117 119 123 135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554
    556 563 587 601 636 989 990 993 995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665
    6666 6667 6668 6669 6679 6697 10080
"""

HASHED = Hashed("f4afe93ad799484b1d512cc20e93efd1", 7, "http://a.example.com/", None, None, None)
TIMED_OUT = TemporaryFailure("timed_out", "The server was silent for too long.")
RESET = TemporaryFailure("incomplete", "The connection broke.")

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, **environ: str) -> Config:
        file = tmp_path / "config.ini"
        file.write_text(text)
        return config.load(str(file), environ)

    return load


def value(config: Config, section: str, key: str) -> object:
    return getattr(getattr(config, section), key)


def read(section: str, key: str, text: str) -> object:
    return config.description(section, key)["read"](text)


# --- the defaults --------------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "key"), DEFAULTS, ids=lambda name: str(name))
def test_a_public_service_has_other_defaults_that_each_key_overrules(
    load: Load, section: str, key: str
) -> None:
    usual = str(config.description(section, key)["default"])
    public = DEFAULTS[section, key]
    assert value(load(""), section, key) == read(section, key, usual)
    assert value(load("[server]\npublic = no"), section, key) == read(section, key, usual)

    opened = load("[server]\npublic = yes")
    assert value(opened, section, key) == read(section, key, public) != read(section, key, usual)
    assert opened.sources[section, key] == SOURCE
    assert f"# from {SOURCE}\n{key} = " in config.show(opened)

    # Set to what it would be without `public`, it is that.
    named = {"server": "[server]\npublic = yes\n"}.get(
        section, f"[server]\npublic = yes\n[{section}]\n"
    )
    assert value(load(f"{named}{key} = {usual}"), section, key) == read(section, key, usual)
    variable = f"MD5LIGHT_{section}_{key}".upper()
    environ = {"MD5LIGHT_SERVER_PUBLIC": "yes", variable: usual}
    assert value(load("", **environ), section, key) == read(section, key, usual)


def test_the_defaults_are_the_promised_ones(load: Load) -> None:
    opened = load("", MD5LIGHT_SERVER_PUBLIC="yes")
    server, download = opened.server, opened.download
    assert (server.submits_per_minute, server.max_unfinished_per_client) == (30, 1000)
    assert (server.max_batch_lines, opened.worker.per_host) == (10_000, 4)
    assert (download.min_bytes_per_second, download.max_seconds) == (1000, 7200)
    assert (download.max_bytes, download.max_redirects) == (10**11, 5)
    assert (opened.smtp.per_recipient_per_hour, opened.queue.retention_days) == (10, 90)


def test_no_port_that_browsers_block_is_open_and_every_other_is(load: Load) -> None:
    bad = {int(port) for port in BAD_PORTS.split()}
    usual, public = (
        load("").download.allow_ports,
        load("[server]\npublic = yes").download.allow_ports,
    )
    assert isinstance(public, Ports)
    assert [port for port in range(65536) if port in public] == [
        port for port in range(65536) if port in usual and port not in bad
    ]


@pytest.mark.parametrize(
    ("text", "warns"),
    [
        ("", False),
        ("[server]\nhost = ::1", False),
        ("[server]\nhost = localhost\nbase_url = http://md5.localhost:8080", False),
        ("[server]\nhost = unix:/run/md5light.sock", False),
        ("[server]\nhost = 0.0.0.0", True),
        ("[server]\nhost = ::", True),
        ("[server]\nhost = md5.example.org", True),
        ("[server]\nbase_url = https://md5.example.org", True),
        ("[server]\nhost = unix:/run/md5light.sock\nbase_url = https://md5.example.org", True),
        ("[server]\nhost = 0.0.0.0\npublic = no", False),
        ("[server]\nbase_url = https://md5.example.org\npublic = yes", False),
    ],
)
def test_a_server_that_others_reach_must_say_whether_strangers_do(
    load: Load, text: str, warns: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load(text)
    assert bool(undecided(loaded)) == warns
    admin.config_check(loaded, argparse.Namespace(config=None, json=False))
    assert capsys.readouterr().err.count("public is not set") == warns


def test_the_start_warns_once(tmp_path: Path) -> None:
    settings = {"port": 0, "base_url": "https://md5.example.org"}
    with Service(tmp_path, server=settings) as service:
        assert service.start_server().lines.count("event=public_unset") == 1


# --- a client's share ----------------------------------------------------------------------------


def submit(queue: Queue, client: str) -> str:
    return queue.submit("http://a.example.com/", "a.example.com", client=client)


def submit_list(batches: Batches, count: int, client: str = "ann") -> str:
    batch_id = batches.begin(NewBatch("urls", client))
    host = "b.example.com"
    batches.add(
        batch_id,
        [NewLine(number, "", f"http://{host}/{number}", host) for number in range(1, count + 1)],
    )
    return batches.publish(batch_id).id


def test_a_client_has_a_share_of_the_queue_and_others_have_theirs(
    make_queue: MakeQueue, clock: Clock
) -> None:
    queue = make_queue(limits=Limits(unfinished_per_client=3))
    jobs = [submit(queue, "ann") for _ in range(3)]
    with pytest.raises(TooMany) as caught:
        submit(queue, "ann")
    assert (caught.value.code, caught.value.retry_after) == ("too_many_unfinished", 60)
    submit(queue, "bob")
    # What runs counts as well; what has ended does not.
    job = queue.claim("w1")
    assert job is not None
    with pytest.raises(TooMany):
        submit(queue, "ann")
    queue.settle(job, HASHED)
    submit(queue, "ann")
    assert queue.cancel(jobs[1])
    submit(queue, "ann")
    with pytest.raises(TooMany):
        submit(queue, "ann")


def test_a_batchs_lines_count_a_tenth(make_queue: MakeQueue, database: Database) -> None:
    queue = make_queue(limits=Limits(unfinished_per_client=3))
    batches = Batches(database, max_attempts=3, limits=Limits(unfinished_per_client=3))
    first = submit_list(batches, 20)
    submit(queue, "ann")
    submissions: list[Callable[[], str]] = [
        lambda: submit(queue, "ann"),
        lambda: submit_list(batches, 1),
    ]
    for refused in submissions:
        with pytest.raises(TooMany) as caught:
            refused()
        assert caught.value.code == "too_many_unfinished"
    submit_list(batches, 30, "bob")
    with pytest.raises(TooMany):
        submit_list(batches, 31, "carol")
    batches.cancel(first)
    submit(queue, "ann")


# --- places at addresses -------------------------------------------------------------------------


def claimed(queue: Queue, count: int) -> list[Job]:
    for number in range(count):
        queue.submit("http://a.example.com/", f"h{number}.example.com")
    jobs = [job for job in (queue.claim("w1") for _ in range(count)) if job]
    assert len(jobs) == count
    return jobs


def test_an_address_has_so_many_places_and_no_more(queue: Queue, database: Database) -> None:
    peers = Peers(database, 2)
    one, two, three, four = claimed(queue, 4)
    assert peers.take(one, ["192.0.2.1"]) == {"192.0.2.1"}
    assert peers.take(two, ["192.0.2.1", "192.0.2.2"]) == {"192.0.2.1", "192.0.2.2"}
    assert peers.take(three, ["192.0.2.1"]) == set()
    assert peers.take(three, ["192.0.2.1", "192.0.2.2"]) == {"192.0.2.2"}
    # Its own places don't stand in a job's way, and at the next hop it leaves them.
    assert peers.take(one, ["192.0.2.1"]) == {"192.0.2.1"}
    assert peers.take(one, ["192.0.2.3"]) == {"192.0.2.3"}
    assert peers.take(four, ["192.0.2.1"]) == {"192.0.2.1"}


def test_a_place_ends_with_its_claim(queue: Queue, database: Database, clock: Clock) -> None:
    peers = Peers(database, 1)
    one, two = claimed(queue, 2)
    ends: list[Callable[[Job], object]] = [
        lambda job: queue.settle(job, HASHED),
        lambda job: queue.release(job),
        lambda job: queue.cancel(job.id),
    ]
    for end in ends:
        assert peers.take(one, ["192.0.2.1"])
        assert not peers.take(two, ["192.0.2.1"])
        end(one)
        assert peers.take(two, ["192.0.2.1"])
        assert not peers.take(one, ["192.0.2.1"])
        queue.settle(two, RESET)
        assert peers.sweep() == 1
        one, two = claimed(queue, 3)[:2]


def test_a_lost_job_keeps_its_place_until_another_claim(
    queue: Queue, database: Database, clock: Clock
) -> None:
    peers = Peers(database, 1)
    (lost,) = claimed(queue, 1)
    assert peers.take(lost, ["192.0.2.1"])
    clock.pass_(61)
    again = queue.claim("w2")
    assert again is not None
    assert peers.take(again, ["192.0.2.1"])
    assert not peers.take(lost, ["192.0.2.1"])


def test_a_job_that_found_no_place_comes_back_later_untried(queue: Queue, clock: Clock) -> None:
    (job,) = claimed(queue, 1)
    assert queue.release(job, pause=5)
    queue.clamp_due_at()
    assert queue.claim("w1") is None
    clock.pass_(5)
    again = queue.claim("w1")
    assert again is not None
    assert again.attempts == 1


# --- what is told --------------------------------------------------------------------------------


def unanswered(code: str) -> TemporaryFailure:
    failure = TemporaryFailure(code, f"what {code} means")
    failure.unanswered = True
    return failure


@pytest.mark.parametrize("code", ["connection_failed", "timed_out", "bad_response", "tls_failed"])
def test_a_port_that_does_not_answer_is_told_as_one_code(code: str) -> None:
    failure = told(unanswered(code))
    assert failure.told == ("connection_failed", NO_ANSWER)
    assert (failure.code, failure.message) == (code, f"what {code} means")


@pytest.mark.parametrize(
    "failure",
    [
        TemporaryFailure("name_not_found", "The host's name could not be found."),
        TemporaryFailure("name_not_found", "The host's name has no address."),
        unanswered("name_not_found"),
        PermanentFailure("address_not_allowed", "The host's IPv4 address is not open."),
    ],
)
def test_a_name_that_is_known_inside_alone_is_told_as_one_that_is_not(
    failure: TemporaryFailure | PermanentFailure,
) -> None:
    stored = told(failure)
    assert isinstance(stored, TemporaryFailure)
    assert stored.told == ("name_not_found", NO_NAME)


def test_what_an_answer_showed_is_told() -> None:
    for failure in (
        PermanentFailure("http_status", "The server answered with status 404."),
        PermanentFailure("tls_failed", "The certificate has expired."),
        TemporaryFailure("incomplete", "The connection broke."),
        TIMED_OUT,
    ):
        assert told(failure).told == (failure.code, failure.message)


def test_a_download_that_timed_out_is_tried_once_more(make_queue: MakeQueue, clock: Clock) -> None:
    queue = make_queue(max_attempts=5)
    (job,) = claimed(queue, 1)
    assert queue.settle(job, RESET)[0] == "queued"
    statuses = []
    for _ in range(2):
        clock.pass_(3600)
        again = queue.claim("w1")
        assert again is not None
        statuses.append(queue.settle(again, told(TIMED_OUT))[0])
    assert statuses == ["queued", "failed"]
    stored = queue.get(job.id)
    assert stored is not None
    assert (stored.attempts, stored.max_attempts) == (3, 3)
    # An administrator's retry gives all attempts back.
    assert queue.retry(job.id)
    assert [each.max_attempts for each in queue.newest(1)] == [5]


# --- one stranger --------------------------------------------------------------------------------


#: downloads at once from one address of a public service
PLACES = 4


class Crowd:
    """Counts how many requests are answered at once; the first ones wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._full = threading.Event()
        self.now = self.most = 0

    def answer(self, peer: Peer) -> bool:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now == PLACES:
                self._full.set()
        self._full.wait(30)
        time.sleep(0.05)  # a download that takes its time
        with self._lock:
            self.now -= 1
        return peer.reply(b"body")


def public(folder: Path, **more: dict[str, object]) -> contextlib.AbstractContextManager[Service]:
    """Start a public service that may reach loopback, and lets us submit as often as we like."""
    server = {"port": 0, "public": "yes", "submits_per_minute": 0, **more.pop("server", {})}
    return running(folder, server=server, **more)


@pytest.fixture
def machines() -> Iterator[list[Origin]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Origin(host=f"127.0.1.{n}")) for n in range(1, 13)]


@pytest.mark.slow
def test_many_hosts_of_one_machine_get_its_places(tmp_path: Path, machines: list[Origin]) -> None:
    """Jobs of 12 hosts, all of which redirect to one address, over two processes."""
    crowd = Crowd()
    with Origin() as target, public(tmp_path, worker={"processes": 2, "threads": 8}) as service:
        url = target.serve("/file", crowd.answer)
        for machine in machines:
            machine.serve("/", lambda peer: peer.reply(b"", "302 Found", f"Location: {url}"))
        jobs = [service.submit(machine.url("/")) for machine in machines]
        for job in jobs:
            assert service.result(job, timeout=60)["status"] == "done"
        assert crowd.most == PLACES
        assert {service.job(job)["attempts"] for job in jobs} == {1}


@pytest.mark.slow
def test_dripping_files_of_one_machine_keep_nobody_waiting(
    tmp_path: Path, machines: list[Origin]
) -> None:
    def drip(peer: Peer) -> None:
        peer.send(reply(length=600))
        peer.drip(bytes(600), 0.1)

    with Origin() as other, public(tmp_path, worker={"processes": 2, "threads": 4}) as service:
        url = other.serve("/drip", drip)
        for machine in machines:
            machine.serve("/", lambda peer: peer.reply(b"", "302 Found", f"Location: {url}"))
            for _ in range(2):
                service.submit(machine.url("/"))
        wait_until(lambda: other.requests("/drip") == PLACES)
        begun = time.monotonic()
        with Origin(host="127.0.0.2") as quick:
            done = service.result(service.submit(quick.serve("/", b"body")))
        assert done["status"] == "done"
        assert other.requests("/drip") == PLACES
        assert time.monotonic() - begun < 10


@pytest.mark.slow
def test_nobody_fills_the_queue_alone(tmp_path: Path) -> None:
    server = {
        "port": 0,
        "public": "yes",
        "submits_per_minute": 0,
        "max_unfinished_per_client": 100,
        "trusted_proxy": "127.0.0.1",
    }
    with Service(tmp_path, server=server) as service, requests.Session() as session:
        service.start_server()

        def submit_from(client: str) -> requests.Response:
            headers = {"X-Forwarded-For": client}
            data = {"url": "http://files.example.com/"}
            return session.post(f"{service.url}/submit", data=data, headers=headers, timeout=10)

        statuses = [submit_from("2001:db8::1").status_code for _ in range(101)]
        assert (statuses.count(202), statuses[-1]) == (100, 429)
        refused = submit_from("2001:db8::2")
        assert refused.json()["error"]["code"] == "too_many_unfinished"
        assert refused.headers["Retry-After"] == "60"
        assert submit_from("2001:db8:0:1::1").status_code == 202


@pytest.mark.slow
def test_a_stranger_gets_ten_mails_that_say_why_and_whom_to_ask(tmp_path: Path) -> None:
    with Origin() as origin, public(tmp_path) as service:
        url = origin.serve("/file", b"body")
        data = {"url": url, "email": "stranger@example.org"}
        answers = [requests.post(f"{service.url}/submit", data=data, timeout=10) for _ in range(30)]
        assert [answer.status_code for answer in answers] == [202] * 10 + [429] * 20
        assert answers[-1].json()["error"]["code"] == "too_many_mails"
        folder = mailbox.Maildir(tmp_path / "md5light-mail")
        mails = wait_until(lambda: len(folder) == 10 and list(folder))
        assert mails
        for mail in mails:
            text = mail.get_payload(decode=True)
            assert isinstance(text, bytes)
            assert b"because this address was given" in text
            assert b"postmaster@localhost" in text


@contextlib.contextmanager
def ports() -> Iterator[dict[str, str]]:
    """Give URLs of ports that are closed, silent and of another protocol, each at its own host."""
    closed = socket.create_server(("127.0.0.2", 0))
    url = f"http://127.0.0.2:{closed.getsockname()[1]}/"
    closed.close()
    ssh = b"SSH-2.0-OpenSSH_9.2\r\n"
    answers = {"silent": b"", "ssh": ssh, "smtp": b"220 mail ESMTP\r\n", "tls to no tls": ssh}
    with contextlib.ExitStack() as stack:
        urls = {"closed": url}
        for number, (name, banner) in enumerate(answers.items(), 3):
            listener = stack.enter_context(socket.create_server((f"127.0.0.{number}", 0)))
            threading.Thread(target=greet, args=(listener, banner), daemon=True).start()
            scheme = "https" if name == "tls to no tls" else "http"
            urls[name] = f"{scheme}://127.0.0.{number}:{listener.getsockname()[1]}/"
        yield urls


def greet(listener: socket.socket, banner: bytes) -> None:
    """Accept connections and say `banner`; without one be silent."""
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        while True:
            connection = stack.enter_context(listener.accept()[0])
            connection.sendall(banner)


@pytest.mark.slow
def test_a_port_scan_has_thirty_tries_a_minute_and_learns_one_code(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "server": {"submits_per_minute": 30},
        "queue": {"max_attempts": 2, "retry_seconds": 0},
        "download": {
            "allow_networks": "127.0.0.0/8",
            "first_byte_timeout": 0.2,
            "connect_timeout": 0.2,
        },
    }
    with ports() as urls, public(tmp_path, **settings) as service:
        jobs = {name: service.submit(url) for name, url in urls.items()}
        told = {name: service.result(job)["error"] for name, job in jobs.items()}
        attempts = {service.job(job)["attempts"] for job in jobs.values()}
        assert told == {name: {"code": "connection_failed", "message": NO_ANSWER} for name in urls}
        assert attempts == {2}
        # The log tells the operator what was wrong.
        log = "".join(command.lines for command in service.commands)
        assert {"timed_out", "bad_response"} <= set(re.findall(r" code=(\w+)", log))
        left = [
            requests.post(f"{service.url}/submit", data={"url": urls["closed"]}, timeout=10)
            for _ in range(40)
        ]
        assert [answer.status_code for answer in left].count(202) == 30 - len(jobs)
        assert left[-1].json()["error"]["code"] == "too_many_submits"


#: names of a private network, which the machine knows, and name servers that know nothing
NAMES = """
printf '10.1.2.3 inside.example\\n' >"$1/hosts"
printf 'nameserver 127.0.0.1\\noptions timeout:1 attempts:1\\n' >"$1/resolv.conf"
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/resolv.conf" /etc/resolv.conf
shift
exec "$@"
"""


@pytest.mark.slow
def test_nobody_learns_the_names_of_a_private_network(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"queue": {"max_attempts": 2, "retry_seconds": 0}}
    settings["server"] = {"port": 0, "public": "yes"}
    with Service(tmp_path, **settings) as service:
        service.start_server()
        service.enter = ["unshare", "-m", "sh", "-ec", NAMES, "sh", str(tmp_path)]
        service.start_pool()
        names = ("inside.example", "unknown.example")
        jobs = [service.submit(f"http://{name}/") for name in names]
        told = [service.result(job) for job in jobs]
        assert (
            told[0]["error"] == told[1]["error"] == {"code": "name_not_found", "message": NO_NAME}
        )
        assert {service.job(job)["attempts"] for job in jobs} == {2}
        log = "".join(command.lines for command in service.commands)
        assert "code=address_not_allowed" in log
