"""What a real Postfix refuses, for reasons that its operators know well."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from md5light.config import SmtpConfig
from md5light.errors import Failure, OperatorFailure, PermanentFailure, TemporaryFailure
from md5light.mail.mailer import Mailer
from md5light.mail.messages import compose
from tests.mails import JOB, PUBLIC_URL, mail_of
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = mail.example.org
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relay_domains = example.org
relay_recipient_maps = inline:{{ann@example.org=ok, grey@example.org=ok, bob@example.org=ok}}
relay_transport = discard
message_size_limit = 3000
smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname
smtpd_sender_restrictions = reject_non_fqdn_sender
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access inline:{{
    {{grey@example.org = 450 4.7.1 Greylisted}}, {{bob@example.org = 554 5.7.1 Blocked}}}}
"""

#: Postfix's programs that take mails in, and throw them away
MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
discard unix - - n - - discard
bounce unix - - n - 0 bounce
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
"""


def write_configuration(folder: Path, port: int) -> None:
    for name in ("queue", "data"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    (folder / "main.cf").write_text(MAIN.format(folder=folder))
    (folder / "master.cf").write_text(MASTER.format(port=port))


def listens(port: int) -> bool:
    with contextlib.suppress(ConnectionError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@pytest.fixture(scope="module")
def postfix() -> Iterator[SmtpConfig]:
    """A Postfix with queue and configuration of its own, and how it is reached."""
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("root alone can start Postfix")
    program = shutil.which("postfix", path="/usr/sbin")
    assert program, "Postfix is missing. On Debian or Ubuntu: sudo apt-get install postfix"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="md5light-postfix-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # its daemons run as a user of their own
        write_configuration(folder, port)
        process = subprocess.Popen([program, "-c", name, "start-fg"])
        try:
            wait_until(lambda: listens(port), message="Postfix to listen")
            yield SmtpConfig(
                host="127.0.0.1", port=port, security="none", sender="md5@sender.example"
            )
        finally:
            os.kill(int((folder / "queue/pid/master.pid").read_text()), signal.SIGTERM)
            process.wait(10)


def outcome(config: SmtpConfig, recipient: str, url: str = JOB.url) -> Failure | None:
    """Deliver one mail; return how that failed."""
    mail = dataclasses.replace(mail_of(JOB, url=url), recipient=recipient)
    mailer = Mailer(config)
    try:
        mailer.send(compose(mail, config, PUBLIC_URL), recipient)
    except Failure as failure:
        return failure
    finally:
        mailer.close()
    return None


def test_a_mail_is_accepted(postfix: SmtpConfig) -> None:
    assert outcome(postfix, "ann@example.org") is None


@pytest.mark.parametrize("helo_name", ["", "relay.example.org", "[127.0.0.1]"])
def test_each_name_in_ehlo_is_accepted(postfix: SmtpConfig, helo_name: str) -> None:
    config = dataclasses.replace(postfix, helo_name=helo_name)
    assert outcome(config, "ann@example.org") is None


@pytest.mark.parametrize("sender", [SmtpConfig().sender, "md5light@mailhost"])
def test_a_local_sender_is_the_operators_to_mend(postfix: SmtpConfig, sender: str) -> None:
    failure = outcome(dataclasses.replace(postfix, sender=sender), "ann@example.org")
    assert isinstance(failure, OperatorFailure)
    assert failure.message == "The mail server answered 504 5.5.2 to the recipient."
    assert "Sender address rejected" in failure.detail


@pytest.mark.parametrize(
    ("recipient", "words"),
    [("ann@elsewhere.example", "Relay access denied"), ("bob@example.org", "Blocked")],
)
def test_policy_is_the_operators_to_mend(postfix: SmtpConfig, recipient: str, words: str) -> None:
    failure = outcome(postfix, recipient)
    assert isinstance(failure, OperatorFailure)
    assert failure.message == "The mail server answered 554 5.7.1 to the recipient."
    assert words in failure.detail


def test_an_unknown_helo_name_is_the_operators_to_mend(postfix: SmtpConfig) -> None:
    failure = outcome(dataclasses.replace(postfix, helo_name="mailhost"), "ann@example.org")
    assert isinstance(failure, OperatorFailure)
    assert failure.message == "The mail server answered 504 5.5.2 to the recipient."


def test_an_unknown_recipient_is_permanent(postfix: SmtpConfig) -> None:
    failure = outcome(postfix, "nobody@example.org")
    assert isinstance(failure, PermanentFailure)
    assert failure.message == "The mail server answered 550 5.1.1 to the recipient."


def test_a_message_that_is_too_big_is_permanent(postfix: SmtpConfig) -> None:
    failure = outcome(postfix, "ann@example.org", "http://site.com/" + "x" * 8000)
    assert isinstance(failure, PermanentFailure)
    assert failure.message == "The mail server answered 552 5.3.4 to the message."


def test_greylisting_is_temporary(postfix: SmtpConfig) -> None:
    failure = outcome(postfix, "grey@example.org")
    assert isinstance(failure, TemporaryFailure)
    assert not isinstance(failure, OperatorFailure)
    assert failure.message.startswith("The mail server answered 450 to the recipient")
