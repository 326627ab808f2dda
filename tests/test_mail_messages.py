"""What mails say, as it arrives at a real mail server."""

from __future__ import annotations

import dataclasses
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr, parsedate_to_datetime
from typing import Any

import pytest

from md5light.config import SmtpConfig
from md5light.errors import PermanentFailure
from md5light.job import Job, Mail
from md5light.mail.addresses import check_address
from md5light.mail.mailer import Mailer
from md5light.mail.messages import compose, compose_test
from tests.mails import (
    CONFIG,
    DONE,
    FAILED,
    FAILED_JOB,
    JOB,
    MESSAGE,
    PUBLIC_URL,
    RECIPIENT,
    SENDER,
    mail_of,
)
from tests.postbox import Mail as Received
from tests.postbox import Postbox, ScriptedPostbox


def delivered(*messages: EmailMessage, recipient: str = RECIPIENT) -> list[Received]:
    """Send `messages` to a mail server and return what arrives."""
    with Postbox() as postbox:
        mailer = Mailer(smtp(postbox))
        for message in messages:
            mailer.send(message, recipient)
        mailer.close()
    return postbox.mails


def smtp(postbox: Postbox | ScriptedPostbox) -> SmtpConfig:
    return dataclasses.replace(CONFIG, host=postbox.host, port=postbox.port, security="none")


def parsed(message: EmailMessage) -> EmailMessage:
    """Read `message` as a mail reader does."""
    read = message_from_bytes(message.as_bytes(), policy=policy.SMTP)
    assert isinstance(read, EmailMessage)
    return read


def url_mail(url: str) -> Mail:
    return mail_of(JOB, url=url)


def subject(url: str, job: Job = JOB) -> str:
    message = compose(mail_of(job, url=url), CONFIG, PUBLIC_URL)
    return str(parsed(message)["Subject"])


def test_a_mail_of_a_result_tells_all_of_it() -> None:
    (mail,) = delivered(MESSAGE)
    assert (mail.sender, mail.recipients) == (SENDER, [RECIPIENT])
    assert mail.message["From"] == SENDER
    assert mail.message["To"] == RECIPIENT
    assert mail.message["Reply-To"] is None
    assert mail.message["Subject"] == "md5light: done: file.txt"
    assert mail.message["Auto-Submitted"] == "auto-generated"
    assert mail.message["Message-ID"] == f"<{JOB.id}@sender.example>"
    assert mail.message["Content-Type"] == 'text/plain; charset="utf-8"'
    assert parsedate_to_datetime(mail.message["Date"]).timestamp() == int(JOB.finished_at or 0)
    link = f"{PUBLIC_URL}/jobs/{JOB.id}"
    for part in (JOB.url, JOB.md5, "1234 bytes", "2023-11-14 22:13:20 UTC", link):
        assert str(part) in mail.text


def test_a_single_byte_is_not_bytes() -> None:
    message = compose(mail_of(JOB, size=1), CONFIG, PUBLIC_URL)
    assert "Size:   1 byte\n" in message.get_content()


def test_a_mail_tells_further_digests_and_that_the_file_is_as_expected() -> None:
    wanted = {"digests": "sha1 sha512", "sha1": "1" * 40, "sha512": "5" * 128}
    message = compose(mail_of(JOB, **wanted, expected_size=1234), CONFIG, PUBLIC_URL)
    text = message.get_content()
    assert message["Subject"] == "md5light: matched: file.txt"
    assert f"\nSHA-1:  {'1' * 40}\nSHA-512: {'5' * 128}\nSize:   1234 bytes\n" in text
    assert "\nCheck:  matched. The file is as expected.\n" in text


def test_a_mail_tells_of_a_file_that_is_not_as_expected() -> None:
    mail = mail_of(
        JOB, expected_size=7, content_type="text/html", final_url="http://site.com/\u202elogin"
    )
    message = compose(mail, CONFIG, PUBLIC_URL)
    text = message.get_content()
    assert message["Subject"] == "md5light: mismatched: file.txt"
    assert (
        "\nCheck:  mismatched. The file is not as expected: size is 1234, not 7; "
        "it looks like a page: its type is text/html.\n"
        "Type:   text/html\nFrom:   http://site.com/\\u202elogin\n" in text
    )


def test_a_mail_of_a_failure_tells_the_reason() -> None:
    message = compose(FAILED, CONFIG, PUBLIC_URL)
    text = message.get_content()
    assert message["Subject"] == "md5light: failed: file.txt"
    assert "The server answered 404." in text
    assert FAILED_JOB.url in text
    assert "None" not in text


@pytest.mark.parametrize("mail", [DONE, FAILED])
@pytest.mark.parametrize(
    ("options", "contact"),
    [
        ({}, "postmaster@sender.example"),
        ({"sender": "Checksums <md5@mirror.example>"}, "postmaster@mirror.example"),
        ({"reply_to": "ops@mirror.example"}, "ops@mirror.example"),
        ({"reply_to": "The operators <ops@mirror.example>"}, "ops@mirror.example"),
    ],
)
def test_a_mail_tells_why_it_came_and_who_can_stop_it(
    mail: Mail, options: dict[str, Any], contact: str
) -> None:
    text = compose(mail, dataclasses.replace(CONFIG, **options), PUBLIC_URL).get_content()
    reason = " ".join(text.splitlines()[-3:])
    assert "because this address was given when the URL was submitted" in reason
    assert PUBLIC_URL in reason
    assert reason.endswith(f"write to {contact}.")


def test_a_mail_is_the_same_at_each_attempt() -> None:
    assert compose(DONE, CONFIG, PUBLIC_URL).as_bytes() == MESSAGE.as_bytes()


# --- the sender -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["sender", "reply_to"])
@pytest.mark.parametrize(
    "name",
    [
        "Checksums",
        "Checksums of a mirror",
        "Prüfsummen, Universität Tübingen",
        "校验和",
        'O"Neil',
        "a, b; c: d (e)",
        "very long " * 12 + "name",
        "sehr länglicher " * 12 + "Name",
    ],
)
def test_a_senders_name_is_in_the_header_alone(key: str, name: str) -> None:
    shown = name.replace('"', "")  # the configuration has no way to write one within a name
    named: Any = {key: f"{shown} <md5@mirror.example>"}
    config = dataclasses.replace(CONFIG, **named)
    with Postbox() as postbox:
        mailer = Mailer(dataclasses.replace(smtp(postbox), **named))
        mailer.send(compose(DONE, config, PUBLIC_URL), RECIPIENT)
        mailer.close()
    (mail,) = postbox.mails
    assert mail.data.isascii()
    assert mail.sender == ("md5@mirror.example" if key == "sender" else SENDER)
    header = message_from_bytes(mail.data)["From" if key == "sender" else "Reply-To"]
    encoded, address = parseaddr(header.replace("\r\n", ""))
    assert address == "md5@mirror.example"
    assert str(make_header(decode_header(encoded))) == shown.strip()


# --- subjects -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://site.com/a.iso", "a.iso"),
        (
            "https://site.com/deep/er/debian-12.8.0-amd64-netinst.iso",
            "debian-12.8.0-amd64-netinst.iso",
        ),
        ("http://site.com/a.iso?token=secret#part", "a.iso"),
        ("http://site.com/a.iso?path=/b.iso", "a.iso"),
        ("http://site.com/c++_1~2.tar.gz", "c++_1~2.tar.gz"),
        ("http://site.com/my%20file.iso", "my_file.iso"),
        ("http://site.com/%61.iso", "a.iso"),
        ("http://site.com/a%2Fb.iso", "a_b.iso"),
        ("http://site.com/dir/", "dir"),
        ("http://site.com/f%C3%BCr.iso", "f_r.iso"),
        ("http://site.com/für.iso", "f_r.iso"),
        ("http://site.com/%FF%FE.iso", "_.iso"),
        ("http://site.com", "site.com"),
        ("http://site.com/", "site.com"),
        ("http://site.com:8080/", "site.com"),
        ("http://user:password@site.com/", "site.com"),
        ("http://site.com?x=1", "site.com"),
        ("http://site.com/?x=/a.iso", "site.com"),
        ("http://site.com/%E6%96%87", "site.com"),
        ("http://site.com/..", "site.com"),
        ("http://site.com/%2E%2E/...", "site.com"),
    ],
)
def test_a_subject_names_the_file_else_the_host(url: str, name: str) -> None:
    assert subject(url) == f"md5light: done: {name}"
    assert subject(url, FAILED_JOB) == f"md5light: failed: {name}"


@pytest.mark.parametrize(
    "name",
    [
        "a%0D%0ABcc:%20victim@example.org",
        "a%0ASubject:%20other",
        "%00%01%1b[31m",
        "a%E2%80%AEgpj.exe",
        "a%E2%81%A6b%E2%81%A9",
        "a%E2%80%A8b%C2%85c",
        "a%EF%BB%BFb%E2%80%8Bc",
        "=%3Futf-8%3Fq%3F=0D=0ABcc:_victim@example.org%3F=",
        "%3Ca@example.org%3E",
        "http:%2F%2Fevil.example%2F",
        "x" * 8000,
        "%41" * 2000,
        "ü" * 2000,
        "%ED%A0%80a",
        "\ud800a",
        "a\\b",
    ],
)
def test_a_subject_is_short_and_in_safe_characters(name: str) -> None:
    told = subject(f"http://site.com/{name}")
    assert told.startswith("md5light: done: ")
    assert len(told) <= 80
    assert set(told.removeprefix("md5light: done: ")) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.+~-_"
    )


@pytest.mark.parametrize(
    ("host", "name"), [("2001:db8::1", "2001_db8_1"), ("xn--bcher-kva.de", "xn--bcher-kva.de")]
)
def test_a_host_is_named_in_safe_characters(host: str, name: str) -> None:
    message = compose(mail_of(JOB, url=f"http://{host}/", host=host), CONFIG, PUBLIC_URL)
    assert message["Subject"] == f"md5light: done: {name}"


def test_long_names_are_told_apart_by_both_ends() -> None:
    names = [f"{first}{'x' * 100}{last}" for first in "ab" for last in ("1.iso", "2.iso")]
    assert len({subject(f"http://site.com/{name}") for name in names}) == 4


# --- what strangers chose -------------------------------------------------------------------------

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
    "long": "http://a/" + "x" * 8183,
    "long unicode": "http://a/" + "ü€😀" * 2000,
    "equals": "http://a/?" + "=20=0D=0A" * 200,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_foreign_makes_a_header_a_recipient_or_a_line(text: str) -> None:
    hostile = [
        compose(url_mail(text), CONFIG, text),
        compose(mail_of(FAILED_JOB, error_message=text), CONFIG, PUBLIC_URL),
    ]
    for mail, innocent in zip(delivered(*hostile), (DONE, FAILED), strict=True):
        expected = compose(innocent, CONFIG, PUBLIC_URL)
        assert mail.recipients == [RECIPIENT]
        assert mail.message.keys() == expected.keys()
        assert [v for k, v in mail.message.items() if k != "Subject"] == [
            v for k, v in expected.items() if k != "Subject"
        ]
        assert len(mail.text.splitlines()) == len(expected.get_content().splitlines())
        assert max(len(line) for line in mail.data.split(b"\r\n")) <= 78
        assert mail.data.isascii()


def test_a_long_url_arrives_whole() -> None:
    url = "http://site.com/" + "x=é." * 2000
    (mail,) = delivered(compose(url_mail(url), CONFIG, PUBLIC_URL))
    assert url in mail.text.splitlines()[2]


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
def test_a_mail_goes_to_plain_addresses_only(recipient: str) -> None:
    with pytest.raises(PermanentFailure) as failure:
        compose(dataclasses.replace(DONE, recipient=recipient), CONFIG, PUBLIC_URL)
    assert failure.value.code == "bad_address"
    with pytest.raises(PermanentFailure):
        compose_test(CONFIG, recipient)
    with ScriptedPostbox() as postbox:
        with pytest.raises(PermanentFailure) as failure:
            Mailer(smtp(postbox)).send(MESSAGE, recipient)
        assert failure.value.code == "bad_address"
        assert postbox.heard == []


def test_the_longest_address_is_not_broken() -> None:
    recipient = check_address(
        "x" * 64 + "@" + "y" * 60 + "." + "z" * 60 + "." + "ü" * 20 + ".org", local_domains=False
    )
    message = compose(dataclasses.replace(DONE, recipient=recipient), CONFIG, PUBLIC_URL)
    (mail,) = delivered(message, recipient=recipient)
    assert mail.recipients == [recipient]
    assert [address.addr_spec for address in mail.message["To"].addresses] == [recipient]
