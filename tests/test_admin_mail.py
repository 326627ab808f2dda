"""`md5light mail test`: each step of a delivery is told, and what goes wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.command import Run, configure, free_port, refused, run, run_apart, said
from tests.postbox import SILENCE, Postbox, ScriptedPostbox, certificates, repeat

pytestmark = pytest.mark.slow

RECIPIENT = "ann@example.org"

#: the steps to a session with STARTTLS and a login
OPENING = ("name", "connection", "greeting", "TLS", "login")


def mail_test(tmp_path: Path, address: str = RECIPIENT, *, run: Run = run) -> CompletedProcess[str]:
    return run("md5light", "-v", "--config", "config.ini", "mail", "test", address, cwd=tmp_path)


def steps(done: CompletedProcess[str]) -> list[str]:
    """Return the steps that were told, the last with what went wrong."""
    lines = re.findall(r"^(\S+) +(ok|failed: .*)$", done.stdout, re.MULTILINE)
    return [step if result == "ok" else f"{step} {result}" for step, result in lines]


def test_a_mail_is_sent_step_by_step(tmp_path: Path) -> None:
    context, ca_file = certificates(tmp_path)
    with Postbox(starttls=context, login=("md5", "hunter2")) as postbox:
        configure(
            tmp_path,
            host="localhost",
            port=postbox.port,
            ca_file=ca_file,
            username="md5",
            password="hunter2",
        )
        done = mail_test(tmp_path, run=run_apart)
        assert said(done).endswith("\nlocalhost has taken the mail over.\n")
        assert steps(done) == ["address", *OPENING, "sender", "recipient", "message"]
        (mail,) = postbox.mails
        assert (mail.recipients, mail.message["Subject"]) == ([RECIPIENT], "md5light: test")


def test_without_a_server_the_mail_is_kept_in_the_maildir(tmp_path: Path) -> None:
    configure(tmp_path, maildir="mails")
    done = mail_test(tmp_path, "ann@localhost")
    assert done.returncode == 0
    assert done.stdout.endswith(
        f"The mail is kept in {tmp_path}/mails, since [smtp] host is empty.\n"
    )
    assert len(list((tmp_path / "mails/new").iterdir())) == 1
    assert "ann" not in done.stderr


def test_a_mail_is_tried_with_one_line_of_json(tmp_path: Path) -> None:
    configure(tmp_path, maildir="mails")
    command = ["mail", "test", "--json", "--config", "config.ini", RECIPIENT]
    told = json.loads(run("md5light", *command, cwd=tmp_path).stdout)
    assert told["delivered"] is True
    assert {step["result"] for step in told["steps"]} == {"ok"}
    configure(tmp_path, maildir="/proc/mails")
    done = run("md5light", *command, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (done.returncode, told["delivered"]) == (1, False)
    assert told["steps"][-1]["result"].startswith("failed: The mail could not be written")


def test_a_maildir_that_can_not_be_written(tmp_path: Path) -> None:
    configure(tmp_path, maildir="/proc/mails")
    done = mail_test(tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "md5light: the mail was not delivered: maildir failed\n",
    )
    assert steps(done)[-1].startswith("maildir failed: The mail could not be written")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            {"CONNECT": repeat("554 go away")},
            "greeting failed: The mail server answered 554 to the connection.",
        ),
        (
            {"STARTTLS": repeat("454 no")},
            "TLS failed: The mail server answered 454 to the STARTTLS.",
        ),
        (
            {"AUTH": repeat("535 who?")},
            "login failed: The mail server answered 535 to the login. 535 who?",
        ),
        (
            {"MAIL": repeat("550 not you")},
            "sender failed: The mail server answered 550 to the sender. 550 not you",
        ),
        (
            {"RCPT": repeat(f"550 <{RECIPIENT}> unknown")},
            "recipient failed: The mail server answered 550 to the recipient."
            f" 550 <{RECIPIENT}> unknown",
        ),
        (
            {"END": repeat("452 full")},
            "message failed: The mail server answered 452 to the message. 452 full",
        ),
        ({"EHLO": [SILENCE]}, "greeting failed: The mail server was silent for too long."),
    ],
)
def test_what_a_server_refuses_is_told_plainly(
    script: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    context, ca_file = certificates(tmp_path)
    with ScriptedPostbox(starttls=context, **script) as postbox:
        smtp = {"host": "localhost", "port": postbox.port, "ca_file": ca_file, "timeout": 2}
        configure(tmp_path, **smtp, username="md5", password="hunter2")
        done = mail_test(tmp_path)
        assert postbox.mails == []
    assert steps(done)[-1].startswith(problem)
    step = problem.partition(" ")[0]
    assert (done.returncode, done.stderr) == (
        1,
        f"md5light: the mail was not delivered: {step} failed\n",
    )
    assert "hunter2" not in done.stdout + done.stderr


def test_a_server_that_is_not_there_is_told_plainly(tmp_path: Path) -> None:
    configure(tmp_path, host="127.0.0.1", port=free_port())
    done = mail_test(tmp_path)
    assert done.returncode == 1
    assert steps(done)[:2] == ["address", "name"]
    assert steps(done)[2].endswith("Connection refused")


def test_a_server_whose_name_does_not_exist_is_told_plainly(tmp_path: Path) -> None:
    configure(tmp_path, host="mail..example")  # not a name at all, so nobody is asked
    done = mail_test(tmp_path)
    assert done.returncode == 1
    assert steps(done)[1].startswith("name failed: The name of the mail server can't be looked up")


def test_a_certificate_that_is_not_trusted_is_told_plainly(tmp_path: Path) -> None:
    context, _ = certificates(tmp_path)
    with Postbox(tls=context) as postbox:
        configure(tmp_path, host="localhost", port=postbox.port, security="tls")
        done = mail_test(tmp_path)
    assert done.returncode == 1
    assert steps(done)[-1].startswith(
        "TLS failed: The certificate of the mail server is not trusted"
    )


@pytest.mark.parametrize(
    "address", ["ann", "ann@localhost", "ann@example.org\nBcc: bob@example.org", ""]
)
def test_an_address_that_is_none_is_wrong_usage(address: str, tmp_path: Path) -> None:
    with Postbox() as postbox:
        configure(tmp_path, host=postbox.host, port=postbox.port, security="none")
        assert refused(mail_test(tmp_path, address), code=2).startswith("The address must ")
        assert postbox.connections == 0
