"""Mails of the whole service: real commands, real mail servers, real signals;
and the limits that keep both from abuse."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import signal
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from tests.origin import Origin, Peer
from tests.postbox import HANG_UP, SILENCE, Drip, Postbox, ScriptedPostbox, repeat
from tests.service import Command, Service, running
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

FILE = "http://files.example.com/a"
ANN = "ann@example.com"

#: [queue] without pauses between two attempts
AT_ONCE = {"retry_seconds": 0}


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def smtp(postbox: Postbox | ScriptedPostbox, **more: object) -> dict[str, object]:
    """The section of the configuration that delivers to `postbox`."""
    return {"host": postbox.host, "port": postbox.port, "sender": "md5@example.org", **more}


def at(step: str, answers: Iterable[object]) -> dict[str, Any]:
    """A script for a postbox: its answers at one step."""
    return {step: answers}


def message_ids(postbox: Postbox | ScriptedPostbox) -> list[str]:
    return [str(mail.message["Message-ID"]) for mail in postbox.mails]


def wait_for_mail(service: Service, job_id: str, state: str) -> None:
    wait_until(
        lambda: service.job(job_id)["mail"] == state, message=f"the mail of {job_id} to be {state}"
    )


def kill_worker(pool: Command) -> None:
    """Kill the pool's only worker and return when it is dead."""
    (worker,) = pool.children()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: worker not in pool.children(), message="the death of the worker")


# --- a mail server that does not do what it should ------------------------------------------------


@pytest.mark.parametrize("answer", [SILENCE, Drip()], ids=["silent", "dripping"])
def test_a_mailer_that_hangs_delays_no_hash_and_loses_no_mail(
    tmp_path: Path, answer: object
) -> None:
    one_process = {"processes": 1, "shutdown_seconds": 0}
    with (
        Origin() as origin,
        ScriptedPostbox(CONNECT=repeat(answer)) as postbox,
        running(tmp_path, worker=one_process, smtp=smtp(postbox, timeout=60)) as service,
    ):
        ids = [service.submit(origin.serve("/first", b"first"), email=ANN)]
        wait_until(lambda: postbox.connections)
        ids += [service.submit(origin.serve(f"/{n}", b"%d" % n), email=ANN) for n in range(20)]
        results = [service.result(job_id)["md5"] for job_id in ids]
        assert results == [md5(b"first"), *(md5(b"%d" % n) for n in range(20))]
        assert {service.job(job_id)["mail"] for job_id in ids} == {"waiting"}
        assert postbox.connections == 1
        assert service.commands[-1].stop() == 0
        postbox.follow()
        service.start_pool()
        for job_id in ids:
            wait_for_mail(service, job_id, "sent")
        assert sorted(message_ids(postbox)) == sorted(f"<{job_id}@example.org>" for job_id in ids)


def test_a_mail_server_that_is_down_delays_mails_and_nothing_else(tmp_path: Path) -> None:
    with Postbox() as postbox:
        down = smtp(postbox)
    with Origin() as origin, running(tmp_path, smtp=down) as service:
        ids = [service.submit(origin.serve(f"/{n}", b"%d" % n), email=ANN) for n in range(20)]
        assert [service.result(job_id)["md5"] for job_id in ids] == [
            md5(b"%d" % n) for n in range(20)
        ]
        service.commands[-1].wait_for_line("event=mail_failed .*code=connection_failed")
        assert {service.job(job_id)["mail"] for job_id in ids} == {"waiting"}


def test_a_mail_does_not_wait_behind_queued_downloads(tmp_path: Path) -> None:
    with Origin() as origin, Postbox() as postbox:
        gate = origin.gate()

        def hold(peer: Peer) -> object:
            gate.wait(30)
            return peer.reply(b"late")

        one_slot = {"processes": 1, "threads": 1}
        with running(tmp_path, worker=one_slot, smtp=smtp(postbox)) as service:
            done = service.submit(origin.serve("/file", b"body"), email=ANN)
            held = [
                service.submit(origin.serve(f"/held/{n}", hold), email="bob@example.com")
                for n in range(10)
            ]
            wait_for_mail(service, done, "sent")
            assert [mail.recipients for mail in postbox.mails] == [[ANN]]
            assert "queued" in {service.job(job_id)["status"] for job_id in held}


class Mailing(NamedTuple):
    """A service that tries a mail again at once, and its mail server, which follows any script."""

    service: Service
    postbox: ScriptedPostbox
    #: of a file
    url: str

    def mail(self, email: str, state: str) -> str:
        """Submit the file, and return the job's id once its mail is in that state."""
        job_id = self.service.submit(self.url, email=email)
        wait_for_mail(self.service, job_id, state)
        return job_id


@pytest.fixture(scope="module")
def mailing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailing]:
    folder = tmp_path_factory.mktemp("mailing")
    with (
        Origin() as origin,
        ScriptedPostbox() as postbox,
        running(folder, queue=AT_ONCE, smtp=smtp(postbox)) as service,
    ):
        yield Mailing(service, postbox, origin.serve("/file", b"body"))


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "END"])
def test_451_twice_then_good(mailing: Mailing, step: str) -> None:
    mailing.postbox.follow(**at(step, ["451 later"] * 2))
    mailing.mail(ANN, "sent")
    assert len(mailing.postbox.mails) == 1
    assert mailing.postbox.heard.count(step) == 3


def test_550_costs_one_attempt_and_no_result_and_no_other_mail(mailing: Mailing) -> None:
    mailing.postbox.follow(RCPT=["550 unknown"])
    refused = mailing.mail(ANN, "failed")
    mailing.mail("bob@example.com", "sent")
    assert mailing.service.result(refused)["md5"] == md5(b"body")
    assert [mail.recipients for mail in mailing.postbox.mails] == [["bob@example.com"]]
    assert mailing.postbox.heard.count("RCPT") == 2


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "END"])
def test_what_the_operator_has_to_mend_delays_mails_and_is_said_aloud(
    mailing: Mailing, step: str
) -> None:
    mailing.postbox.follow(**at(step, [f"550 5.7.1 {ANN}: relaying denied"]))
    job_id = mailing.mail(ANN, "sent")
    assert len(mailing.postbox.mails) == 1
    lines = mailing.service.commands[-1].lines.splitlines()
    (line,) = [line for line in lines if "event=mail_failed" in line and job_id in line]
    assert "level=error" in line
    assert "550 5.7.1" in line
    assert "The operator has to mend this" in line
    assert ANN not in line
    assert "denied" not in line


def test_a_mail_is_given_up_after_give_up_days(tmp_path: Path) -> None:
    with Origin() as origin, ScriptedPostbox(DATA=repeat("451 later")) as postbox:
        soon = {"retry_seconds": 0.1}
        days = "0.00001"  # less than a second
        with running(tmp_path, queue=soon, smtp=smtp(postbox, give_up_days=days)) as service:
            job_id = service.submit(origin.serve("/file", b"body"), email=ANN)
            wait_for_mail(service, job_id, "failed")
            assert service.result(job_id)["md5"] == md5(b"body")
        assert postbox.heard.count("DATA") > 1


def test_one_connection_serves_all_waiting_mails(tmp_path: Path) -> None:
    with Origin() as origin, contextlib.ExitStack() as stack:
        gate = origin.gate()

        def greet_late() -> Iterator[str]:
            gate.wait(30)
            yield "220 postbox"

        postbox = stack.enter_context(ScriptedPostbox(CONNECT=greet_late()))
        with running(tmp_path, "--processes", "1", smtp=smtp(postbox, timeout=30)) as service:
            ids = [service.submit(origin.serve(f"/{n}", b"%d" % n), email=ANN) for n in range(20)]
            for job_id in ids:
                service.result(job_id)
            gate.set()
            for job_id in ids:
                wait_for_mail(service, job_id, "sent")
        assert len(set(message_ids(postbox))) == len(postbox.mails) == 20
        assert postbox.connections == 1


def test_a_mail_that_can_not_be_made_stops_no_other(tmp_path: Path) -> None:
    with Origin() as origin, ScriptedPostbox(RCPT=["451 later"]) as postbox:
        slow = {"retry_seconds": 0.5}
        with running(
            tmp_path, "--processes", "1", queue=slow, smtp=smtp(postbox, give_up_days="0.00001")
        ) as service:
            broken = service.submit(origin.serve("/file", b"body"), email=ANN)
            service.commands[-1].wait_for_line("event=mail_failed")
            with contextlib.closing(
                sqlite3.connect(service.database, isolation_level=None)
            ) as database:
                database.execute("update outbox set recipient = x'ff'")
            wait_for_mail(service, broken, "failed")
            whole = service.submit(origin.url("/file"), email=ANN)
            wait_for_mail(service, whole, "sent")


# --- a worker that is killed ----------------------------------------------------------------------


@pytest.mark.parametrize("step", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END"])
def test_a_worker_killed_before_the_250_sends_one_mail(tmp_path: Path, step: str) -> None:
    """The worker dies when the server has heard `step` and not answered; END: the whole mail."""

    def kill_once() -> Iterator[object]:
        kill_worker(service.commands[-1])
        yield HANG_UP

    with Origin() as origin, ScriptedPostbox(**at(step, kill_once())) as postbox:
        with running(tmp_path, "--processes", "1", smtp=smtp(postbox)) as service:
            job_id = service.submit(origin.serve("/file", b"body"), email=ANN)
            wait_for_mail(service, job_id, "sent")
            assert service.job(job_id)["attempts"] == 1
            assert service.commands[-1].lines.count("event=worker_died") == 1
        assert message_ids(postbox) == [f"<{job_id}@example.org>"]


def test_a_worker_killed_between_the_250_and_our_note_sends_the_same_mail_twice(
    tmp_path: Path,
) -> None:
    with contextlib.ExitStack() as stack:

        def lock_once() -> Iterator[str]:
            locking.execute("begin immediate")  # from here on nobody can note anything
            yield "250 OK"

        origin, postbox = (
            stack.enter_context(Origin()),
            stack.enter_context(ScriptedPostbox(END=lock_once())),
        )
        service = stack.enter_context(running(tmp_path, "--processes", "1", smtp=smtp(postbox)))
        connection = sqlite3.connect(
            service.database, isolation_level=None, check_same_thread=False
        )
        locking = stack.enter_context(contextlib.closing(connection))
        job_id = service.submit(origin.serve("/file", b"body"), email=ANN)
        wait_until(lambda: postbox.mails)
        kill_worker(service.commands[-1])
        locking.execute("rollback")
        wait_for_mail(service, job_id, "sent")
        assert message_ids(postbox) == [f"<{job_id}@example.org>"] * 2
        assert postbox.mails[0].data == postbox.mails[1].data


def test_a_worker_killed_after_our_note_sends_no_other_mail(tmp_path: Path) -> None:
    with Origin() as origin, ScriptedPostbox() as postbox:
        with running(tmp_path, "--processes", "1", smtp=smtp(postbox)) as service:
            ids = [service.submit(origin.serve("/file", b"body"), email=ANN)]
            service.commands[-1].wait_for_line("event=mailed")
            kill_worker(service.commands[-1])
            ids.append(service.submit(origin.url("/file"), email=ANN))
            wait_for_mail(service, ids[1], "sent")
        assert message_ids(postbox) == [f"<{job_id}@example.org>" for job_id in ids]


# --- secrets --------------------------------------------------------------------------------------


PASSWORD = "correct-horse"

SECRETS = [
    ANN,
    "ann",
    "example.com",
    PASSWORD,
    base64.b64encode(f"\0user\0{PASSWORD}".encode()).decode(),
]


def test_no_log_and_no_answer_holds_an_address_or_a_password(tmp_path: Path) -> None:
    words = f"550 {ANN} has no {PASSWORD}"
    with (
        Postbox(login=("user", PASSWORD), login_without_tls=True) as good,
        ScriptedPostbox(AUTH=[words] * 2, RCPT=repeat(words)) as bad,
    ):
        said = say_all(tmp_path, good, "sent") + say_all(tmp_path, bad, "failed")
        assert good.mails[0].recipients == [ANN]
    assert said.count("event=submitted") > 1
    assert "event=mailed" in said
    assert "code=login_failed" in said  # temporary: the second attempt is let in
    assert "code=refused" in said
    assert not [secret for secret in SECRETS if secret in said]


def say_all(folder: Path, postbox: Postbox | ScriptedPostbox, state: str) -> str:
    """Return all that a service logs and answers until a mail to `postbox` is in that state."""
    settings = smtp(postbox, username="user", password=PASSWORD)
    with (
        Origin() as origin,
        Service(folder, queue=AT_ONCE, smtp=settings, log={"level": "debug"}) as service,
    ):
        service.start_server("-v")
        service.start_pool("-v")
        job_id = service.submit(origin.serve("/file", b"body"), email=ANN)
        wait_for_mail(service, job_id, state)
        said = service.check(job_id).text + str(service.job(job_id))
        for address in (f"{ANN} {ANN}", f"{ANN}\r\n", [ANN, ANN]):
            data = {"url": FILE, "email": address}
            answer = requests.post(f"{service.url}/submit", data=data, timeout=10)
            said += answer.text + str(answer.headers)
        return said + "".join(command.lines for command in service.commands)


# --- who may have mails sent, and how many --------------------------------------------------------


def submit(service: Service, *, via: str = "", **fields: str) -> requests.Response:
    """Submit a URL; `via` is what a proxy would say of the client."""
    headers = {"X-Forwarded-For": via} if via else {}
    return requests.post(
        f"{service.url}/submit", data={"url": FILE, **fields}, headers=headers, timeout=10
    )


def assert_refused(answer: requests.Response, status: int, code: str, longest: int) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert 1 <= int(answer.headers["Retry-After"]) <= longest


LOCAL = ["ann@localhost", "ann@mailhost", "ann@printer.local", "ann@box.test"]


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"host": "mail.example.com"}, 400),
        ({"host": "mail.example.com", "local_domains": "yes"}, 202),
        ({"host": "", "local_domains": "no"}, 202),
    ],
    ids=["a mail server", "a mail server, local domains", "the Maildir"],
)
def test_local_domains_are_for_the_maildir_or_where_they_are_wanted(
    tmp_path: Path, settings: dict[str, object], status: int
) -> None:
    with Service(tmp_path, smtp=settings) as service:
        service.start_server()
        answers = [submit(service, email=address) for address in LOCAL]
        assert [answer.status_code for answer in answers] == [status] * len(LOCAL)
        if status == 400:
            assert {answer.json()["error"]["code"] for answer in answers} == {"invalid_email"}
        assert submit(service, email=ANN).status_code == 202


def test_a_clients_share_holds_over_two_servers_and_a_restart(tmp_path: Path) -> None:
    with Service(tmp_path, server={"submits_per_minute": 2}) as service:
        first = service.start_server()
        assert submit(service, via="203.0.113.1").status_code == 202
        service.start_server()
        assert (
            submit(service, via="203.0.113.2").status_code == 202
        )  # believed of nobody: there is no proxy
        assert_refused(submit(service), 429, "too_many_submits", 60)
        assert first.stop() == 0
        service.start_server()
        assert_refused(submit(service), 429, "too_many_submits", 60)


def test_a_recipients_share_holds_over_two_servers_and_clients(tmp_path: Path) -> None:
    settings = {"host": "mail.example.com", "per_recipient_per_hour": 2}
    with Service(tmp_path, smtp=settings, server={"trusted_proxy": "127.0.0.1"}) as service:
        service.start_server()
        assert submit(service, via="203.0.113.1", email=ANN).status_code == 202
        service.start_server()
        assert submit(service, via="203.0.113.2", email="Ann@Example.COM").status_code == 202
        assert_refused(submit(service, via="203.0.113.3", email=ANN), 429, "too_many_mails", 3600)
        assert submit(service, email="bob@example.com").status_code == 202
        assert submit(service).status_code == 202


def test_a_full_queue_is_full_for_two_servers(tmp_path: Path) -> None:
    with Service(tmp_path, server={"max_unfinished": 3}) as service:
        urls = []
        for _ in range(2):
            service.start_server()
            urls.append(service.url)
        answers = []
        for number in range(4):
            service.url = urls[number % 2]
            answers.append(submit(service))
        assert [answer.status_code for answer in answers] == [202, 202, 202, 503]
        assert_refused(answers[-1], 503, "queue_full", 60)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("203.0.113.7", "203.0.113.8", False),
        ("203.0.113.7", "203.0.113.7:4321", True),
        ("203.0.113.7", "198.51.100.1, 203.0.113.7", True),
        ("203.0.113.7", "203.0.113.7, 198.51.100.1", False),
        ("203.0.113.7", "::ffff:203.0.113.7", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "[2001:db8:1:2::2]:4321", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("203.0.113.7", 'unknown "value, 203.0.113.7', True),
    ],
)
def test_a_trusted_proxy_tells_the_clients_apart(
    proxied: Service, first: str, second: str, same: bool
) -> None:
    with contextlib.closing(sqlite3.connect(proxied.database, isolation_level=None)) as database:
        database.execute("delete from jobs")
    assert submit(proxied, via=first).status_code == 202
    assert submit(proxied, via=second).status_code == (429 if same else 202)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server behind a proxy, where each client may submit once."""
    settings = {"submits_per_minute": 1, "trusted_proxy": "127.0.0.1"}
    with Service(tmp_path_factory.mktemp("proxied"), server=settings) as service:
        service.start_server()
        yield service


def test_only_the_trusted_proxy_is_believed(tmp_path: Path) -> None:
    with Service(
        tmp_path, server={"submits_per_minute": 1, "trusted_proxy": "127.0.0.2"}
    ) as service:
        service.start_server()
        assert submit(service, via="203.0.113.1").status_code == 202
        assert submit(service, via="203.0.113.2").status_code == 429
