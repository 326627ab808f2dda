"""The addresses that a submission may name."""

from __future__ import annotations

import pytest

from md5light.errors import Refused
from md5light.mail.addresses import check_address


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
