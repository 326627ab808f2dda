"""Delivery through real mail servers on loopback."""

from __future__ import annotations

import base64
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from md5light.config import SmtpConfig
from md5light.errors import (
    Failure,
    OperatorFailure,
    PermanentFailure,
    Stopped,
    TemporaryFailure,
)
from md5light.mail.mailer import Mailer
from tests.mails import MESSAGE, RECIPIENT, SENDER
from tests.postbox import HANG_UP, SILENCE, Drip, Postbox, ScriptedPostbox, certificates, repeat
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("empty_store")

PASSWORD = "correct horse"

#: every step at which a server that asks for TLS and a login can fail
STEPS = ("CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "END")


def config(postbox: Postbox | ScriptedPostbox, **options: Any) -> SmtpConfig:
    """Return the configuration that delivers to `postbox`, in plain text unless told otherwise."""
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


# --- delivery -------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("timeout", "longest"),
    [pytest.param(60.0, 10.0, marks=pytest.mark.slow), (0.15, 1.0)],
)
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


# --- refusals -------------------------------------------------------------------------------------

#: steps at which a reply can be about the mail
MAIL_STEPS = ("RCPT", "DATA", "END")

#: replies about the recipient or the message
ABOUT_THE_MAIL = (
    "550 no",
    "501 bad address",
    "551 not here",
    "552 full",
    "553 not a name",
    "554 no",
    "550 5.0.0 no",
    "550 5.1.0 no",
    "550 5.1.1 unknown",
    "553 5.1.2 no such host",
    "501 5.1.3 bad syntax",
    "550-5.1.1 unknown\r\n550 5.1.1 really",
    "550 #5.1.1 unknown",
    "556 5.1.10 takes no mail",
    "550 5.2.1 disabled",
    "552 5.2.2 full",
    "552 5.3.4 too big",
    "550 5.4.1 rejected",
    "554 5.4.6 loop",
    "554 5.6.0 bad content",
    "550 x5.7.1 not an enhanced code",
    "550 5.7.1x not an enhanced code",
    "550 4.7.1 of another class",
)

#: replies about the sender, the system, its limits, the protocol or policy
ABOUT_THE_OPERATOR = (
    "553 5.1.7 sender",
    "550 5.1.8 sender",
    "550 5.3.0 system",
    "552 5.3.1 system full",
    "521 5.3.2 not now",
    "554 5.3.5 misconfigured",
    "550 5.4.5 daily limit",
    "503 5.5.0 sequence",
    "503 5.5.1 sequence",
    "504 5.5.2 need fully-qualified address",
    "550 5.5.4 arguments",
    "554 5.7.0 policy",
    "550 5.7.1 relay denied",
    "554 5.7.1 blocked",
    "550 5.7.26 unauthenticated",
    "550 5.7.509 dmarc",
    "550 #5.7.1 blocked",
    "550-5.7.1 blocked\r\n550 5.7.1 really",
    "530 5.7.0 STARTTLS first",
    "535 5.7.8 login",
    "530 login",
    "534 login",
    "535 login",
    "538 TLS",
    "500 what",
    "502 what",
    "503 login first",
    "504 what",
)


def refused(postbox: ScriptedPostbox, mailer: Callable[..., Mailer]) -> Failure:
    """Deliver, be refused, and deliver again."""
    one = mailer(postbox)
    with pytest.raises(Failure) as failure:
        one.send(MESSAGE, RECIPIENT)
    one.send(MESSAGE, RECIPIENT)
    assert len(postbox.mails) == 1
    return failure.value


@pytest.mark.parametrize("reply", ABOUT_THE_MAIL)
@pytest.mark.parametrize("step", MAIL_STEPS)
def test_a_reply_about_the_mail_is_permanent_and_the_session_serves_the_next(
    step: str, reply: str, mailer: Callable[..., Mailer]
) -> None:
    with ScriptedPostbox(**at(step, [reply])) as postbox:
        failure = refused(postbox, mailer)
        assert postbox.connections == 1
    assert isinstance(failure, PermanentFailure)
    assert failure.code == "refused"
    assert reply[:3] in failure.message


@pytest.mark.parametrize("reply", ABOUT_THE_OPERATOR)
@pytest.mark.parametrize("step", ["MAIL", *MAIL_STEPS])
def test_a_reply_about_the_operators_part_is_temporary(
    step: str, reply: str, mailer: Callable[..., Mailer]
) -> None:
    with ScriptedPostbox(**at(step, [f"{reply} {RECIPIENT}"])) as postbox:
        failure = refused(postbox, mailer)
    assert isinstance(failure, OperatorFailure)
    assert failure.code == ("login_failed" if reply[:3] in LOGIN_REPLIES else "refused")
    assert reply[:3] in failure.message
    assert RECIPIENT not in failure.message


LOGIN_REPLIES = ("530", "534", "535", "538")


@pytest.mark.parametrize("reply", ABOUT_THE_MAIL)
@pytest.mark.parametrize("step", ["CONNECT", "EHLO", "MAIL"])
def test_before_the_recipient_is_named_no_reply_is_about_the_mail(
    step: str, reply: str, mailer: Callable[..., Mailer]
) -> None:
    with ScriptedPostbox(**at(step, [reply])) as postbox:
        assert isinstance(refused(postbox, mailer), OperatorFailure)


@pytest.mark.parametrize(
    "reply", ["421 4.7.0 later", "450 4.7.1 greylisted", "451 later", "452 4.2.2"]
)
@pytest.mark.parametrize("step", ["CONNECT", "EHLO", "MAIL", *MAIL_STEPS])
def test_a_4xx_reply_is_temporary_and_not_the_operators(
    step: str, reply: str, mailer: Callable[..., Mailer]
) -> None:
    with ScriptedPostbox(**at(step, [reply])) as postbox:
        failure = refused(postbox, mailer)
    assert isinstance(failure, TemporaryFailure)
    assert not isinstance(failure, OperatorFailure)


@pytest.mark.parametrize(
    ("step", "reply", "code"),
    [
        ("CONNECT", "554 go away", "refused"),
        ("EHLO", "550 who are you", "refused"),
        ("STARTTLS", "502 what is that", "tls_failed"),
        ("STARTTLS", "454 not now", "tls_failed"),
        ("AUTH", "535 wrong", "login_failed"),
        ("AUTH", "454 not now", "login_failed"),
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


# --- what breaks ----------------------------------------------------------------------------------


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


# --- security -------------------------------------------------------------------------------------


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
    """An address of this host that isn't a loopback one; packets to it stay on the host as well."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no address but loopback")
        return str(unsent.getsockname()[0])


@pytest.mark.parametrize(("user", "password"), [("user", "wrong"), ("other", PASSWORD)])
def test_a_wrong_login_is_the_operators_to_mend(
    user: str, password: str, mailer: Callable[..., Mailer]
) -> None:
    with Postbox(login=("user", PASSWORD), login_without_tls=True) as postbox:
        with pytest.raises(OperatorFailure) as failure:
            mailer(postbox, username=user, password=password).send(MESSAGE, RECIPIENT)
        assert failure.value.code == "login_failed"


@pytest.mark.parametrize("mechanisms", ["PLAIN", "LOGIN", "PLAIN LOGIN"])
@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_names_and_passwords_are_sent_in_utf_8(
    security: str,
    mechanisms: str,
    mailer: Callable[..., Mailer],
    trusted: tuple[ssl.SSLContext, str],
) -> None:
    login = ("jürgen@пример.example", "pässwörd €😀 =")
    context, ca_file = trusted
    options: Any = {} if security == "none" else {security: context}
    with Postbox(
        login=login, login_without_tls=security == "none", mechanisms=mechanisms, **options
    ) as postbox:
        username, password = login
        one = mailer(
            postbox, security=security, ca_file=ca_file, username=username, password=password
        )
        one.send(MESSAGE, RECIPIENT)
        assert len(postbox.mails) == 1


def offering(mechanisms: str) -> dict[str, Any]:
    """A script for a postbox that offers `mechanisms`."""
    return {"EHLO": repeat(f"250-postbox\r\n250 AUTH {mechanisms}")}


def tried(postbox: ScriptedPostbox) -> list[str]:
    """The mechanisms that were tried, in order."""
    return [line.split()[1] for line in postbox.lines if line.startswith("AUTH")]


@pytest.mark.parametrize(
    ("offered", "order"),
    [
        ("CRAM-MD5 LOGIN PLAIN", ["PLAIN", "LOGIN", "CRAM-MD5"]),
        ("XOAUTH2 CRAM-MD5 LOGIN", ["LOGIN", "CRAM-MD5"]),
        ("plain digest-md5", ["PLAIN"]),
        ("CRAM-MD5", ["CRAM-MD5"]),
    ],
)
def test_mechanisms_that_any_server_can_do_come_first(
    offered: str, order: list[str], mailer: Callable[..., Mailer]
) -> None:
    script = offering(offered) | {"AUTH": repeat("535 5.7.8 no")}
    with ScriptedPostbox(**script) as postbox:
        with pytest.raises(OperatorFailure) as failure:
            mailer(postbox, username="user", password=PASSWORD).send(MESSAGE, RECIPIENT)
        assert failure.value.code == "login_failed"
        assert tried(postbox) == order
        assert postbox.connections == 1


@pytest.mark.parametrize("reply", ["504 5.5.4 unknown", "534 5.7.9 too weak", "535 5.7.8 no"])
def test_where_one_mechanism_is_refused_another_may_be_accepted(
    reply: str, mailer: Callable[..., Mailer]
) -> None:
    script = offering("PLAIN LOGIN") | {"AUTH": [reply]}
    with ScriptedPostbox(**script) as postbox:
        mailer(postbox, username="user", password=PASSWORD).send(MESSAGE, RECIPIENT)
        assert tried(postbox) == ["PLAIN", "LOGIN"]
        assert len(postbox.mails) == 1


@pytest.mark.parametrize("answer", [HANG_UP, SILENCE])
@pytest.mark.parametrize(
    ("offered", "order"),
    [
        ("CRAM-MD5 PLAIN", ["PLAIN", "CRAM-MD5"]),
        ("PLAIN LOGIN", ["PLAIN", "LOGIN"]),
        ("CRAM-MD5 LOGIN", ["LOGIN", "CRAM-MD5"]),
    ],
)
def test_a_mechanism_at_which_the_server_hangs_up_is_tried_last_at_the_next_attempt(
    offered: str, order: list[str], answer: object, mailer: Callable[..., Mailer]
) -> None:
    with ScriptedPostbox(**(offering(offered) | {"AUTH": [answer]})) as postbox:
        one = mailer(postbox, username="user", password=PASSWORD, timeout=0.5)
        with pytest.raises(TemporaryFailure):
            one.send(MESSAGE, RECIPIENT)
        one.send(MESSAGE, RECIPIENT)
        assert tried(postbox) == order
        assert len(postbox.mails) == 1


def test_cram_md5_answers_the_challenge(mailer: Callable[..., Mailer]) -> None:
    """The example of RFC 2195, section 2."""
    challenge = base64.b64encode(b"<1896.697170952@postoffice.reston.mci.net>").decode()
    script = offering("CRAM-MD5") | {"AUTH": [f"334 {challenge}"]}
    with ScriptedPostbox(**script) as postbox:
        mailer(postbox, username="tim", password="tanstaaftanstaaf").send(MESSAGE, RECIPIENT)
        response = postbox.lines[postbox.heard.index("RESPONSE") - 1]
        assert base64.b64decode(response) == b"tim b913a602c7eda7a495b4e6e7334d3890"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("challenge", ["334", "334 ", "334 =", "334 a", "334 \xff"])
def test_a_server_that_never_stops_to_challenge_is_temporary(
    challenge: str, mechanism: str, mailer: Callable[..., Mailer]
) -> None:
    script = {"AUTH": repeat(challenge), "RESPONSE": repeat(challenge)}
    with ScriptedPostbox(**(offering(mechanism) | script)) as postbox:
        with pytest.raises(TemporaryFailure) as failure:
            mailer(postbox, username="user", password=PASSWORD).send(MESSAGE, RECIPIENT)
        assert failure.value.code == "login_failed"
        assert postbox.mails == []


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


# --- the name in EHLO -----------------------------------------------------------------------------


def test_the_configured_name_is_said_in_ehlo(mailer: Callable[..., Mailer]) -> None:
    with ScriptedPostbox() as postbox:
        mailer(postbox, helo_name="relay.example.org").send(MESSAGE, RECIPIENT)
        assert postbox.lines[0].lower() == "ehlo relay.example.org"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("mail.example.org", "mail.example.org"),
        ("mailhost", "[127.0.0.1]"),
        ("my_host.example.org", "[127.0.0.1]"),
        ("prüfer.example.org", "[127.0.0.1]"),
    ],
)
def test_without_one_this_host_is_named_so_that_servers_accept_it(
    host: str, said: str, mailer: Callable[..., Mailer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    with ScriptedPostbox() as postbox:
        mailer(postbox).send(MESSAGE, RECIPIENT)
        assert postbox.lines[0].lower() == f"ehlo {said}"


# --- the wrong port -------------------------------------------------------------------------------


@pytest.mark.parametrize("security", ["starttls", "none"])
@pytest.mark.parametrize("answer", [SILENCE, HANG_UP])
def test_a_server_that_expects_tls_at_once_is_told_apart(
    answer: object, security: str, mailer: Callable[..., Mailer]
) -> None:
    with ScriptedPostbox(CONNECT=[answer]) as postbox, pytest.raises(TemporaryFailure) as failure:
        mailer(postbox, security=security, timeout=0.2).send(MESSAGE, RECIPIENT)
    assert failure.value.message.endswith("Port 465 usually wants [smtp] security = tls.")


def test_a_server_with_tls_is_told_apart(
    mailer: Callable[..., Mailer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    with ScriptedPostbox(tls=trusted[0]) as postbox, pytest.raises(TemporaryFailure) as failure:
        mailer(postbox, security="starttls", timeout=0.2).send(MESSAGE, RECIPIENT)
    assert failure.value.code == "timed_out"
    assert "security = tls" in failure.value.message


@pytest.mark.parametrize("greeting", ["220 postbox ESMTP", "554 go away"])
def test_a_server_without_tls_at_once_is_told_apart(
    greeting: str, mailer: Callable[..., Mailer]
) -> None:
    with ScriptedPostbox(CONNECT=[greeting]) as postbox, pytest.raises(OperatorFailure) as failure:
        mailer(postbox, security="tls").send(MESSAGE, RECIPIENT)
    assert failure.value.code == "tls_failed"
    assert "security = starttls" in failure.value.message


# --- steps ----------------------------------------------------------------------------------------


def test_each_step_is_named_before_it_begins(
    mailer: Callable[..., Mailer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = trusted
    steps: list[str] = []
    with Postbox(starttls=context, login=("user", PASSWORD)) as postbox:
        one = mailer(
            postbox, security="starttls", ca_file=ca_file, username="user", password=PASSWORD
        )
        one.send(MESSAGE, RECIPIENT, steps.append)
        assert len(postbox.mails) == 1
    opening = ["address", "name", "connection", "greeting", "TLS", "login"]
    assert steps == [*opening, "sender", "recipient", "message"]


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
def test_a_failure_details_the_servers_words(
    step: str, name: str, mailer: Callable[..., Mailer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = trusted
    steps: list[str] = []
    script = at(step, repeat("550 for a\x1b[31m reason"))
    with ScriptedPostbox(starttls=context, **script) as postbox:
        one = mailer(
            postbox, security="starttls", ca_file=ca_file, username="user", password=PASSWORD
        )
        with pytest.raises(Failure) as failure:
            one.send(MESSAGE, RECIPIENT, steps.append)
    assert steps[-1] == name
    assert failure.value.detail == "550 for a\\x1b[31m reason"


def test_a_name_that_is_none_fails_at_its_step() -> None:
    steps: list[str] = []
    # The name is too long for a label, so no name server is asked.
    mailer = Mailer(SmtpConfig(host="x" * 64, security="none"))
    with pytest.raises(TemporaryFailure) as failure:
        mailer.send(MESSAGE, RECIPIENT, steps.append)
    assert failure.value.code == "name_not_found"
    assert steps[-1] == "name"


def test_a_refused_connection_fails_at_its_step(mailer: Callable[..., Mailer]) -> None:
    steps: list[str] = []
    with ScriptedPostbox() as postbox:
        pass
    with pytest.raises(TemporaryFailure) as failure:
        mailer(postbox).send(MESSAGE, RECIPIENT, steps.append)
    assert steps[-1] == "connection"
    assert failure.value.detail == "Connection refused"
