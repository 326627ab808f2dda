"""The mail room against real mail servers on loopback."""

from __future__ import annotations

import dataclasses
import logging
import mailbox
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from md5light.config import SmtpConfig
from md5light.errors import PermanentFailure, Refused, Stopped, TemporaryFailure
from md5light.mail.mailer import Mailer, Report, check_address, compose, compose_trial
from tests.postbox import HANG_UP, SILENCE, Drip, Postbox, ScriptedPostbox, certificates, repeat
from tests.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

SENDER = "md5light@sender.example"
RECIPIENT = "curator@example.org"
PASSWORD = "correct horse"

REPORT = Report(
    job_id="0e4fac17-f367-4807-8c28-8a059a2f82ac",
    url="http://site.com/file.txt",
    status="done",
    md5="f4afe93ad799484b1d512cc20e93efd1",
    size=1234,
    finished_at=1_700_000_000.9,
    error_message=None,
    link="https://md5.example.org/jobs/0e4fac17-f367-4807-8c28-8a059a2f82ac",
)
FAILED = dataclasses.replace(
    REPORT, status="failed", md5=None, size=None, error_message="The server answered 404."
)

MESSAGE = compose(REPORT, sender=SENDER, recipient=RECIPIENT)

#: every step at which a server that asks for TLS and a login can fail
STEPS = ("CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "END")


def config(postbox: Postbox | ScriptedPostbox, **options: Any) -> SmtpConfig:
    """The configuration that delivers to `postbox`, in plain text unless told otherwise."""
    plain: dict[str, Any] = {"security": "none", "sender": SENDER, "timeout": 5.0}
    return SmtpConfig(host=postbox.host, port=postbox.port, **(plain | options))


def at(step: str, answers: Iterable[object]) -> dict[str, Any]:
    """A script for a postbox: its answers at one step."""
    return {step: answers}


@pytest.fixture
def mailer() -> Iterator[Callable[..., Mailer]]:
    """Makes mailers that deliver to a postbox, and closes them."""
    made: list[Mailer] = []

    def make(postbox: Postbox | ScriptedPostbox, **options: Any) -> Mailer:
        made.append(Mailer(config(postbox, **options)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A server's TLS context for 127.0.0.1, and the file of its authority."""
    return certificates(tmp_path_factory.mktemp("certificates"))


# --- addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("user@example.com", "user@example.com"),
        ("first.last+tag@example.org", "first.last+tag@example.org"),
        ("Mixed@EXAMPLE.Org", "Mixed@example.org"),
        ("o'neil@mail.example.net", "o'neil@mail.example.net"),
        ("user@bücher.example.org", "user@xn--bcher-kva.example.org"),
        ("user@xn--bcher-kva.de", "user@xn--bcher-kva.de"),
        ("user@例え。テスト", "user@xn--r8jz45g.xn--zckzah"),
        ("x" * 64 + "@example.org", "x" * 64 + "@example.org"),
    ],
)
def test_addresses_are_accepted_and_normalised(text: str, address: str) -> None:
    assert check_address(text, local_domains=False) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "user",
        "@example.net",
        "user@",
        "user@@example.org",
        "user@example..org",
        "user@.example.org",
        "user@example.org.",
        ".user@example.org",
        "us..er@example.org",
        "user name@example.org",
        " user@example.org",
        "user@example.org ",
        "user@example.org\n",
        "user@example.org\r\nBcc: other@example.org",
        "user\x00@example.org",
        "user@exam\x00ple.org",
        "user\u2028@example.org",
        "user@example.org\u2029",
        "user\u0085@example.org",
        "user\u00a0@example.org",
        "user\u202e@example.org",
        "user@example\u200b.org",
        "user\ud800@example.org",
        '"user"@example.org',
        '"user name"@example.org',
        "user(comment)@example.org",
        "User <user@example.org>",
        "<user@example.org>",
        "user@example.org,other@example.org",
        "user@example.org;other@example.org",
        "user@example.org other@example.org",
        "user@[127.0.0.1]",
        "user@[IPv6:::1]",
        "user@127.0.0.1",
        "=?utf-8?q?victim=40example.com=2C?=@example.org",
        "x=?utf-8?q?y?=@example.org",
        "jürgen@example.org",
        "пользователь@example.org",
        "user＠example.org",
        "user@-example.org",
        "user@exa_mple.org",
        "user@nowhere.invalid",
        "user@hidden.onion",
        "x" * 65 + "@example.org",
        "user@" + "x" * 64 + ".org",
        "user@" + "x." * 130 + "org",
        "user@" + "x" * 100_000,
        "@" * 100_000,
    ],
)
@pytest.mark.parametrize("local_domains", [False, True])
def test_addresses_are_refused_without_being_repeated(text: str, local_domains: bool) -> None:
    with pytest.raises(Refused) as refused:
        check_address(text, local_domains=local_domains)
    assert refused.value.code == "invalid_email"
    assert not text.strip() or text not in refused.value.message


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("root@localhost", "root@localhost"),
        ("root@sub.localhost", "root@sub.localhost"),
        ("root@Mailhost", "root@mailhost"),
        ("user@printer.LOCAL", "user@printer.local"),
        ("user@a.test", "user@a.test"),
        ("user@bücher.test", "user@xn--bcher-kva.test"),
    ],
)
def test_local_domains_are_accepted_only_where_configured(text: str, address: str) -> None:
    assert check_address(text, local_domains=True) == address
    with pytest.raises(Refused, match="local_domains") as refused:
        check_address(text, local_domains=False)
    assert refused.value.code == "invalid_email"


# --- what a mail says ------------------------------------------------------------------------------------------


def test_a_mail_of_a_result_tells_all_of_it(mailer: Callable[..., Mailer]) -> None:
    with Postbox() as postbox:
        mailer(postbox).send(MESSAGE, RECIPIENT)
        (mail,) = postbox.mails
    assert (mail.sender, mail.recipients) == (SENDER, [RECIPIENT])
    assert mail.message["From"] == SENDER
    assert mail.message["To"] == RECIPIENT
    assert mail.message["Subject"] == "md5light: done"
    assert mail.message["Auto-Submitted"] == "auto-generated"
    assert mail.message["Message-ID"] == f"<{REPORT.job_id}@sender.example>"
    assert mail.message["Content-Type"] == 'text/plain; charset="utf-8"'
    assert parsedate_to_datetime(mail.message["Date"]).timestamp() == int(REPORT.finished_at)
    for part in (REPORT.url, REPORT.md5, "1234 bytes", "2023-11-14 22:13:20 UTC", REPORT.link):
        assert str(part) in mail.text


def test_a_single_byte_is_not_bytes() -> None:
    message = compose(dataclasses.replace(REPORT, size=1), sender=SENDER, recipient=RECIPIENT)
    assert "Size:   1 byte\n" in message.get_content()


def test_a_mail_of_a_failure_tells_the_reason() -> None:
    message = compose(FAILED, sender=SENDER, recipient=RECIPIENT)
    text = message.get_content()
    assert message["Subject"] == "md5light: failed"
    assert "The server answered 404." in text
    assert FAILED.url in text
    assert FAILED.link in text
    assert "None" not in text


def test_a_mail_is_the_same_at_each_attempt() -> None:
    again = compose(REPORT, sender=SENDER, recipient=RECIPIENT)
    assert again.as_bytes() == MESSAGE.as_bytes()


HOSTILE = {
    "header": "http://a/\r\nBcc: victim@example.org\r\n\r\nNew body",
    "newline": "http://a/\nSubject: other",
    "carriage return": "http://a/\rSubject: other",
    "dot": "http://a/\r\n.\r\nMAIL FROM:<victim@example.org>",
    "nul": "http://a/\x00\x01\x1b[31m",
    "separators": "http://a/\u2028b\u2029c\u0085d\x0be\x0cf\x1cg",
    "direction": "http://a/\u202egpj.exe",
    "surrogate": "http://a/\ud800",
    "encoded word": "=?utf-8?q?=0D=0ABcc:_victim@example.org?=",
    "long": "http://a/" + "x" * 2039,
    "long unicode": "http://a/" + "ü€😀" * 680,
    "equals": "http://a/?" + "=20=0D=0A" * 200,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_foreign_makes_a_header_a_recipient_or_a_line(
    text: str, mailer: Callable[..., Mailer]
) -> None:
    reports = [
        dataclasses.replace(REPORT, url=text, link=text),
        dataclasses.replace(FAILED, error_message=text),
    ]
    with Postbox() as postbox:
        for report in reports:
            mailer(postbox).send(compose(report, sender=SENDER, recipient=RECIPIENT), RECIPIENT)
    for mail, innocent in zip(postbox.mails, (REPORT, FAILED), strict=True):
        expected = compose(innocent, sender=SENDER, recipient=RECIPIENT)
        assert mail.recipients == [RECIPIENT]
        assert [*mail.message.items()] == [*expected.items()]
        assert len(mail.text.splitlines()) == len(expected.get_content().splitlines())
        assert max(len(line) for line in mail.data.split(b"\r\n")) <= 78
        assert mail.data.isascii()


def test_a_long_url_arrives_whole(mailer: Callable[..., Mailer]) -> None:
    url = "http://site.com/" + "x=é." * 508
    with Postbox() as postbox:
        report = dataclasses.replace(REPORT, url=url)
        mailer(postbox).send(compose(report, sender=SENDER, recipient=RECIPIENT), RECIPIENT)
        assert url in postbox.mails[0].text.splitlines()[2]


@pytest.mark.parametrize(
    "recipient",
    [
        "a@example.org, b@example.org",
        "a@example.org\r\nRCPT TO:<b@example.org>",
        "a@example.org>\r\nBcc: b@example.org",
        "=?utf-8?q?a=40example.org=2C?=@example.org",
        "A <a@example.org>",
        "jürgen@example.org",
        "a@..",
        "",
    ],
)
def test_a_mail_goes_to_plain_addresses_only(recipient: str, mailer: Callable[..., Mailer]) -> None:
    with pytest.raises(PermanentFailure) as failure:
        compose(REPORT, sender=SENDER, recipient=recipient)
    assert failure.value.code == "bad_address"
    with ScriptedPostbox() as postbox:
        with pytest.raises(PermanentFailure) as failure:
            mailer(postbox).send(MESSAGE, recipient)
        assert failure.value.code == "bad_address"
        assert postbox.heard == []


def test_the_longest_address_is_not_broken(mailer: Callable[..., Mailer]) -> None:
    recipient = check_address(
        "x" * 64 + "@" + "y" * 60 + "." + "z" * 60 + "." + "ü" * 20 + ".org", local_domains=False
    )
    with Postbox() as postbox:
        mailer(postbox).send(compose(REPORT, sender=SENDER, recipient=recipient), recipient)
        (mail,) = postbox.mails
    assert mail.recipients == [recipient]
    assert [address.addr_spec for address in mail.message["To"].addresses] == [recipient]


# --- delivery --------------------------------------------------------------------------------------------------


def test_one_connection_serves_many_mails(mailer: Callable[..., Mailer]) -> None:
    with Postbox() as postbox:
        one = mailer(postbox)
        for _ in range(5):
            one.send(MESSAGE, RECIPIENT)
        assert len(postbox.mails) == 5
        assert postbox.connections == 1


def test_close_says_good_bye_and_the_next_mail_connects_again(
    mailer: Callable[..., Mailer],
) -> None:
    with ScriptedPostbox() as postbox:
        one = mailer(postbox)
        one.send(MESSAGE, RECIPIENT)
        one.close()
        assert postbox.heard[-1] == "QUIT"
        one.send(MESSAGE, RECIPIENT)
        assert postbox.connections == len(postbox.mails) == 2


@pytest.mark.parametrize(("timeout", "longest"), [(60.0, 10.0), (0.15, 1.0)])
@pytest.mark.parametrize("answer", [SILENCE, Drip()], ids=["silent", "dripping"])
def test_close_does_not_wait_long_for_a_good_bye(
    answer: object, timeout: float, longest: float, mailer: Callable[..., Mailer]
) -> None:
    with ScriptedPostbox(QUIT=[answer]) as postbox:
        one = mailer(postbox, timeout=timeout)
        one.send(MESSAGE, RECIPIENT)
        started = time.monotonic()
        one.close()
        assert time.monotonic() - started < longest


def test_a_kept_session_that_the_server_has_closed_is_reopened(
    mailer: Callable[..., Mailer],
) -> None:
    with ScriptedPostbox() as postbox:
        one = mailer(postbox)
        one.send(MESSAGE, RECIPIENT)
        postbox.hang_up()
        one.send(MESSAGE, RECIPIENT)
        assert postbox.connections == len(postbox.mails) == 2


def test_a_kept_session_that_takes_no_more_mails_is_reopened(mailer: Callable[..., Mailer]) -> None:
    with ScriptedPostbox(MAIL=["250 OK", "421 too many mails"]) as postbox:
        one = mailer(postbox)
        one.send(MESSAGE, RECIPIENT)
        one.send(MESSAGE, RECIPIENT)
        assert postbox.connections == len(postbox.mails) == 2


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "END"])
def test_451_twice_then_good(step: str, mailer: Callable[..., Mailer]) -> None:
    with ScriptedPostbox(**at(step, ["451 later", "451 later"])) as postbox:
        one = mailer(postbox)
        for _ in range(2):
            with pytest.raises(TemporaryFailure) as failure:
                one.send(MESSAGE, RECIPIENT)
            assert failure.value.code == "refused"
            assert "451" in failure.value.message
        one.send(MESSAGE, RECIPIENT)
        assert len(postbox.mails) == 1


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "END"])
def test_550_to_a_mail_is_permanent_and_the_session_serves_the_next(
    step: str, mailer: Callable[..., Mailer]
) -> None:
    with ScriptedPostbox(**at(step, ["550 no"])) as postbox:
        one = mailer(postbox)
        with pytest.raises(PermanentFailure) as failure:
            one.send(MESSAGE, RECIPIENT)
        assert failure.value.code == "refused"
        assert "550" in failure.value.message
        one.send(MESSAGE, RECIPIENT)
        assert postbox.connections == len(postbox.mails) == 1


@pytest.mark.parametrize(
    ("step", "reply", "code"),
    [
        ("CONNECT", "554 go away", "refused"),
        ("EHLO", "550 who are you", "refused"),
        ("STARTTLS", "502 what is that", "tls_failed"),
        ("AUTH", "535 wrong", "login_failed"),
        ("MAIL", "530 Authentication required", "login_failed"),
        ("MAIL", "421 closing", "refused"),
        ("RCPT", "354 eh", "refused"),
        ("RCPT", "not a reply", "refused"),
    ],
)
def test_a_refusal_of_the_session_is_temporary(
    step: str,
    reply: str,
    code: str,
    mailer: Callable[..., Mailer],
    trusted: tuple[ssl.SSLContext, str],
) -> None:
    context, ca_file = trusted
    with ScriptedPostbox(starttls=context, **at(step, repeat(reply))) as postbox:
        one = mailer(
            postbox, security="starttls", ca_file=ca_file, username="user", password=PASSWORD
        )
        for _ in range(2):  # nothing of a session that failed is left over
            with pytest.raises(TemporaryFailure) as failure:
                one.send(MESSAGE, RECIPIENT)
            assert failure.value.code == code
        assert postbox.connections == 2


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("answer", [SILENCE, Drip()], ids=["silent", "dripping"])
def test_a_server_that_fails_at_any_step_costs_a_bounded_time(
    step: str, answer: object, mailer: Callable[..., Mailer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = trusted
    with ScriptedPostbox(starttls=context, **at(step, [answer])) as postbox:
        options = {
            "security": "starttls",
            "ca_file": ca_file,
            "username": "user",
            "password": PASSWORD,
        }
        one = mailer(postbox, timeout=0.15, **options)
        started = time.monotonic()
        with pytest.raises(TemporaryFailure) as failure:
            one.send(MESSAGE, RECIPIENT)
        assert time.monotonic() - started < 3
        assert failure.value.code == "timed_out"
        assert postbox.mails == []


@pytest.mark.parametrize("step", STEPS)
def test_after_a_hang_up_the_next_attempt_delivers(
    step: str, mailer: Callable[..., Mailer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = trusted
    with ScriptedPostbox(starttls=context, **at(step, [HANG_UP])) as postbox:
        one = mailer(
            postbox, security="starttls", ca_file=ca_file, username="user", password=PASSWORD
        )
        with pytest.raises(TemporaryFailure) as failure:
            one.send(MESSAGE, RECIPIENT)
        assert failure.value.code == "connection_failed"
        one.send(MESSAGE, RECIPIENT)
        assert len(postbox.mails) == 1


def test_a_tls_handshake_that_drips_is_ended(mailer: Callable[..., Mailer]) -> None:
    handshake = b"\x16\x03\x03\x3f\xff\x02" + bytes(8000)
    with ScriptedPostbox(CONNECT=[Drip(handshake)]) as postbox:
        started = time.monotonic()
        with pytest.raises(TemporaryFailure) as failure:
            mailer(postbox, security="tls", timeout=0.15).send(MESSAGE, RECIPIENT)
        assert time.monotonic() - started < 3
        assert failure.value.code == "timed_out"


def test_nobody_listens(mailer: Callable[..., Mailer]) -> None:
    with ScriptedPostbox() as postbox:
        pass
    with pytest.raises(TemporaryFailure) as failure:
        mailer(postbox).send(MESSAGE, RECIPIENT)
    assert failure.value.code == "connection_failed"


@pytest.mark.parametrize("step", STEPS)
def test_stop_ends_a_running_exchange_at_once(
    step: str, mailer: Callable[..., Mailer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = trusted
    raised: list[BaseException] = []

    def send() -> None:
        try:
            one.send(MESSAGE, RECIPIENT)
        except Stopped as stopped:
            raised.append(stopped)

    with ScriptedPostbox(starttls=context, **at(step, [SILENCE])) as postbox:
        options = {
            "security": "starttls",
            "ca_file": ca_file,
            "username": "user",
            "password": PASSWORD,
        }
        one = mailer(postbox, timeout=60.0, **options)
        sending = threading.Thread(target=send)
        sending.start()
        wait_until(lambda: step in postbox.heard)
        one.stop()
        sending.join(5)
        assert raised
        with pytest.raises(Stopped):
            one.send(MESSAGE, RECIPIENT)
        assert postbox.mails == []


# --- security --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_trusted_server_gets_login_and_mail(
    security: str, mailer: Callable[..., Mailer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = trusted
    with Postbox(**{security: context}, login=("user", PASSWORD)) as postbox:  # type: ignore[arg-type]
        one = mailer(
            postbox, security=security, ca_file=ca_file, username="user", password=PASSWORD
        )
        one.send(MESSAGE, RECIPIENT)
        one.send(MESSAGE, RECIPIENT)
        assert len(postbox.mails) == 2
        assert postbox.connections == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_an_untrusted_server_gets_nothing(
    security: str, mailer: Callable[..., Mailer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    context, _ = trusted
    with ScriptedPostbox(**{security: context}) as postbox:  # type: ignore[arg-type]
        one = mailer(postbox, security=security, username="user", password=PASSWORD)
        with pytest.raises(TemporaryFailure, match="certificate") as failure:
            one.send(MESSAGE, RECIPIENT)
        assert failure.value.code == "tls_failed"
        assert not {"AUTH", "MAIL"} & set(postbox.heard)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_for_another_name_is_refused(
    security: str, mailer: Callable[..., Mailer], tmp_path: Path
) -> None:
    context, ca_file = certificates(tmp_path, "other.example")
    with ScriptedPostbox(**{security: context}) as postbox:  # type: ignore[arg-type]
        with pytest.raises(TemporaryFailure, match="certificate") as failure:
            mailer(postbox, security=security, ca_file=ca_file).send(MESSAGE, RECIPIENT)
        assert failure.value.code == "tls_failed"
        assert "MAIL" not in postbox.heard


def test_starttls_refused_is_no_reason_to_go_on_in_plain_text(
    mailer: Callable[..., Mailer],
) -> None:
    with ScriptedPostbox(EHLO=repeat("250 postbox"), STARTTLS=repeat("454 not now")) as postbox:
        one = mailer(postbox, security="starttls", username="user", password=PASSWORD)
        with pytest.raises(TemporaryFailure) as failure:
            one.send(MESSAGE, RECIPIENT)
        assert failure.value.code == "tls_failed"
        assert postbox.heard == ["CONNECT", "EHLO", "STARTTLS"]


def test_a_server_without_tls_is_told_apart(mailer: Callable[..., Mailer]) -> None:
    with ScriptedPostbox() as postbox:
        with pytest.raises(TemporaryFailure) as failure:
            mailer(postbox, security="tls").send(MESSAGE, RECIPIENT)
        assert failure.value.code == "tls_failed"


def test_replies_put_in_before_tls_are_forgotten(
    mailer: Callable[..., Mailer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = trusted
    with ScriptedPostbox(starttls=context, STARTTLS=["220 go ahead\r\n550 put in"]) as postbox:
        mailer(postbox, security="starttls", ca_file=ca_file).send(MESSAGE, RECIPIENT)
        assert len(postbox.mails) == 1


def test_a_login_without_tls_goes_to_loopback(mailer: Callable[..., Mailer]) -> None:
    with Postbox(login=("user", PASSWORD), login_without_tls=True) as postbox:
        mailer(postbox, username="user", password=PASSWORD).send(MESSAGE, RECIPIENT)
        assert len(postbox.mails) == 1


def test_a_login_without_tls_goes_nowhere_else(mailer: Callable[..., Mailer]) -> None:
    with Postbox(
        login=("user", PASSWORD), login_without_tls=True, address=_own_address()
    ) as postbox:
        with pytest.raises(TemporaryFailure, match="TLS") as failure:
            mailer(postbox, username="user", password=PASSWORD).send(MESSAGE, RECIPIENT)
        assert failure.value.code == "login_failed"
        assert postbox.mails == []


def _own_address() -> str:
    """An address of this host that isn't a loopback one; packets to it stay on the host all the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no address but loopback")
        return str(unsent.getsockname()[0])


@pytest.mark.parametrize(
    ("user", "password"),
    [("user", "wrong"), ("other", PASSWORD), ("user", "pässword")],
    ids=["password", "user", "ü"],
)
def test_a_wrong_login_is_temporary(
    user: str, password: str, mailer: Callable[..., Mailer]
) -> None:
    with Postbox(login=("user", PASSWORD), login_without_tls=True) as postbox:
        with pytest.raises(TemporaryFailure) as failure:
            mailer(postbox, username=user, password=password).send(MESSAGE, RECIPIENT)
        assert failure.value.code == "login_failed"


def test_a_server_that_wants_a_login_and_gets_none_is_temporary(
    mailer: Callable[..., Mailer],
) -> None:
    with Postbox(login=("user", PASSWORD), login_without_tls=True) as postbox:
        with pytest.raises(TemporaryFailure) as failure:
            mailer(postbox).send(MESSAGE, RECIPIENT)
        assert failure.value.code == "login_failed"


def test_a_server_without_logins_is_told_apart(mailer: Callable[..., Mailer]) -> None:
    with Postbox() as postbox:
        with pytest.raises(TemporaryFailure, match="no login") as failure:
            mailer(postbox, username="user", password=PASSWORD).send(MESSAGE, RECIPIENT)
        assert failure.value.code == "login_failed"


@pytest.mark.parametrize("step", STEPS)
def test_no_message_and_no_log_line_holds_an_address_or_a_password(
    step: str,
    mailer: Callable[..., Mailer],
    trusted: tuple[ssl.SSLContext, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    context, ca_file = trusted
    with ScriptedPostbox(
        starttls=context, **at(step, repeat(f"550 {RECIPIENT} {PASSWORD}"))
    ) as postbox:
        one = mailer(
            postbox, security="starttls", ca_file=ca_file, username="user", password=PASSWORD
        )
        with pytest.raises((TemporaryFailure, PermanentFailure)) as failure:
            one.send(MESSAGE, RECIPIENT)
    told = (
        failure.value.message
        + repr(failure.value)
        + "".join(str(vars(record)) for record in caplog.records)
    )
    assert RECIPIENT not in told
    assert PASSWORD not in told


# --- the trial -------------------------------------------------------------------------------------------------


def test_a_trial_tells_each_step(
    mailer: Callable[..., Mailer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = trusted
    trial = compose_trial(sender=SENDER, recipient=RECIPIENT)
    with Postbox(starttls=context, login=("user", PASSWORD)) as postbox:
        one = mailer(
            postbox, security="starttls", ca_file=ca_file, username="user", password=PASSWORD
        )
        steps = list(one.probe(trial, RECIPIENT))
        (mail,) = postbox.mails
    assert all(step.done and not step.text for step in steps)
    assert [step.name for step in steps] == [
        "address",
        "name",
        "connection",
        "greeting",
        "TLS",
        "login",
        "sender",
        "recipient",
        "message",
    ]
    assert mail.message["Subject"] == "md5light: test"


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("CONNECT", "greeting"),
        ("EHLO", "greeting"),
        ("STARTTLS", "TLS"),
        ("AUTH", "login"),
        ("MAIL", "sender"),
        ("RCPT", "recipient"),
        ("DATA", "message"),
        ("END", "message"),
    ],
)
def test_a_trial_ends_with_the_step_that_failed_and_the_servers_words(
    step: str, name: str, mailer: Callable[..., Mailer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = trusted
    with ScriptedPostbox(
        starttls=context, **at(step, repeat("550 for a\x1b[31m reason"))
    ) as postbox:
        one = mailer(
            postbox, security="starttls", ca_file=ca_file, username="user", password=PASSWORD
        )
        *done, last = one.probe(MESSAGE, RECIPIENT)
    assert all(step.done for step in done)
    assert (last.name, last.done) == (name, False)
    assert last.text.endswith("550 for a [31m reason")


def test_a_trial_with_a_name_that_is_none() -> None:
    mailer = Mailer(
        SmtpConfig(host="x" * 64, security="none")
    )  # too long for a label: no DNS server is asked
    *_, last = mailer.probe(MESSAGE, RECIPIENT)
    assert (last.name, last.done) == ("name", False)


def test_a_trial_with_nobody_listening(mailer: Callable[..., Mailer]) -> None:
    with ScriptedPostbox() as postbox:
        pass
    *_, last = mailer(postbox).probe(MESSAGE, RECIPIENT)
    assert (last.name, last.done) == ("connection", False)


# --- the Maildir -----------------------------------------------------------------------------------------------


def test_mails_are_kept_in_a_maildir_that_others_can_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "deep" / "mails"
    mailer = Mailer(SmtpConfig(maildir=str(folder)))
    mailer.send(MESSAGE, RECIPIENT)
    mailer.send(MESSAGE, RECIPIENT)
    mailer.close()
    kept = list(mailbox.Maildir(folder, create=False))
    assert [mail["Message-ID"] for mail in kept] == [MESSAGE["Message-ID"]] * 2
    assert [mail["To"] for mail in kept] == [RECIPIENT] * 2
    assert str(REPORT.url).encode() in kept[0].get_payload(decode=True)
    assert sorted(_logged_paths(caplog)) == sorted(str(file) for file in (folder / "new").iterdir())
    assert RECIPIENT not in str([vars(record) for record in caplog.records])


def _logged_paths(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        str(vars(record)["fields"]["path"])
        for record in caplog.records
        if record.getMessage() == "mail_kept"
    ]


def test_a_maildir_is_for_its_owner_alone(tmp_path: Path) -> None:
    Mailer(SmtpConfig(maildir=str(tmp_path / "mails"))).send(MESSAGE, RECIPIENT)
    assert stat.S_IMODE((tmp_path / "mails").stat().st_mode) == 0o700


def test_many_mailers_share_a_maildir_from_the_first_mail_on(tmp_path: Path) -> None:
    def send() -> None:
        mailer = Mailer(SmtpConfig(maildir=str(tmp_path / "mails")))
        for _ in range(10):
            mailer.send(MESSAGE, RECIPIENT)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mailbox.Maildir(tmp_path / "mails", create=False)) == 80


def test_a_maildir_that_cannot_be_written_is_a_temporary_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mailer = Mailer(SmtpConfig(maildir=str(tmp_path / "file" / "mails")))
    with pytest.raises(TemporaryFailure) as failure:
        mailer.send(MESSAGE, RECIPIENT)
    assert failure.value.code == "not_kept"
    assert [(step.name, step.done) for step in mailer.probe(MESSAGE, RECIPIENT)] == [
        ("address", True),
        ("maildir", False),
    ]
