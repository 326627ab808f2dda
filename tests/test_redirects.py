"""Redirects: each hop is judged, none is read; cookies go back to the host that set them."""

from __future__ import annotations

import contextlib
import subprocess
import threading

import pytest

from md5light.errors import PermanentFailure
from tests.downloads import (
    BIG,
    ETAG,
    SECRET,
    Fetch,
    downloading,
    failure_of,
    head,
    md5,
    part,
)
from tests.origin import Origin, Peer, Script, reply


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 306, 307, 308, 399])
def test_redirects_are_followed_and_their_bodies_not_read(
    origin: Origin, fetch: Fetch, status: int
) -> None:
    closed = threading.Event()

    def endless(peer: Peer) -> None:
        peer.send(head("Location: ../file", status=f"{status} There"))
        with contextlib.suppress(OSError):
            while True:
                peer.send(BIG)
        closed.set()

    origin.serve("/a/from", endless)
    origin.serve("/file", b"hello")
    assert fetch(origin.url("/a/from")).md5 == md5(b"hello")
    assert closed.wait(5)


@pytest.mark.parametrize("status", [300, 304, 305, 306, 399])
def test_other_statuses_without_a_location_are_no_redirects(
    origin: Origin, fetch: Fetch, status: int
) -> None:
    failure = failure_of(fetch, origin.serve("/file", reply(SECRET, f"{status} x")))
    assert (failure.code, type(failure)) == ("http_status", PermanentFailure)


REFUSED = [
    ([], "it has no Location"),
    ([""], "it has no Location"),
    (["/a", "/b"], "it has several different Locations"),
    (["/a", "http://127.0.0.1/a"], "it has several different Locations"),
    (["ftp://127.0.0.1/x"], "must be absolute and begin with http:// or https://"),
    (["file:///etc/passwd"], "must be absolute and begin with http:// or https://"),
    (["gopher://127.0.0.1:25/x"], "must be absolute and begin with http:// or https://"),
    (["javascript:alert(1)"], "must be absolute and begin with http:// or https://"),
    (["http://user:password@127.0.0.1/"], "contains credentials"),
    (["//user@127.0.0.1/"], "contains credentials"),
    (["/" + "x" * 32768], "is longer than 32,768 characters"),
    (["http://"], "no host"),
    (["http://[::1"], "host or port is malformed"),
    (["http://h:99999/"], "port is not between 1 and 65535"),
    (["http://-\\@h/"], "contains credentials"),
    (["http://h\\x/"], "host is not a possible name"),
    (["http://\u202e/"], "invisible character"),
    (["\r\n /folded"], "control character"),
]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(("locations", "reason"), REFUSED)
def test_a_redirect_that_leads_nowhere_says_why(
    origin: Origin, fetch: Fetch, status: int, locations: list[str], reason: str
) -> None:
    headers = [f"Location: {location}" for location in locations]
    failure = failure_of(fetch, origin.serve("/from", reply(SECRET, f"{status} x", *headers)))
    assert (failure.code, type(failure)) == ("bad_redirect", PermanentFailure)
    assert failure.message.startswith("The server's redirect can't be followed: ")
    assert reason in failure.message


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://10.0.0.1/", "address_not_allowed"),
        ("//169.254.169.254/latest/", "address_not_allowed"),
        ("http://2852039166/", "address_not_allowed"),
        ("http://[::ffff:10.0.0.1]/", "address_not_allowed"),
        ("http://127.0.0.1:22/", "port_not_allowed"),
        ("http://unknown.example/", "name_not_found"),
    ],
)
def test_every_hop_is_judged(origin: Origin, fetch: Fetch, location: str, code: str) -> None:
    url = origin.serve("/from", reply(SECRET, "302 Found", f"Location: {location}"))
    assert failure_of(fetch, url).code == code
    assert origin.connections == 1


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/" + "x" * 9000, "/" + "x" * 9000),
        ("/?" + "x" * 20_000, "/?" + "x" * 20_000),
        ("\\files\\a.zip", "/dir/\\files\\a.zip"),
        ("/f?x=a\\b", "/f?x=a\\b"),
        ("/a\\b/../c", "/c"),
        ("?\\", "/dir/from?\\"),
    ],
)
def test_long_and_odd_locations_are_followed_as_curl_does(
    origin: Origin, fetch: Fetch, location: str, target: str
) -> None:
    origin.serve(target, b"hello")
    url = origin.serve("/dir/from", reply(b"", "302 Found", f"Location: {location}"))
    assert fetch(url).md5 == md5(b"hello")
    curl = subprocess.run(["curl", "-sL", url], check=True, capture_output=True)
    assert curl.stdout == b"hello"


@pytest.mark.parametrize("headers", [("Location: /file",) * 2, ("Location: /file\r\n\r\nmore",)])
def test_a_redirect_that_leaves_no_doubt_is_followed(
    origin: Origin, fetch: Fetch, headers: tuple[str, ...]
) -> None:
    origin.serve("/file", b"hello")
    assert fetch(origin.serve("/from", reply(b"", "302 Found", *headers))).md5 == md5(b"hello")


def test_too_many_redirects(origin: Origin) -> None:
    def script(peer: Peer) -> bool:
        return peer.reply(b"", "302 Found", f"Location: /?{peer.turn}")

    origin.serve("/", script)
    with downloading(max_redirects=3) as fetch:
        failure = failure_of(fetch, origin.url("/"))
    assert (failure.code, type(failure), origin.requests()) == (
        "too_many_redirects",
        PermanentFailure,
        4,
    )


def test_no_redirects_where_none_are_wanted(origin: Origin) -> None:
    with downloading(max_redirects=0) as fetch:
        assert fetch(origin.serve("/file", b"hello")).size == 5
        assert failure_of(
            fetch, origin.serve("/", reply(b"", "302 Found", "Location: /file"))
        ).code == ("too_many_redirects")


# --- cookies --------------------------------------------------------------------------------------


def wall(*cookies: str) -> Script:
    """Redirect to the same URL with cookies, until one comes back."""

    def script(peer: Peer) -> bool:
        if "cookie" in peer.headers:
            return peer.reply(b"hello")
        return peer.reply(b"", "302 Found", f"Location: {peer.path}", *cookies)

    return script


@pytest.mark.parametrize(
    ("cookies", "sent"),
    [
        (("Set-Cookie: a=b",), "a=b"),
        (("Set-Cookie: a=b; Path=/; HttpOnly; Max-Age=9",), "a=b"),
        (("Set-Cookie: a=b; Domain=.example.com",), "a=b"),
        (("Set-Cookie: a=b", "Set-Cookie: c=d=e"), "a=b; c=d=e"),
        (("Set-Cookie: a=b", "Set-Cookie: a=c"), "a=c"),
        (("Set-Cookie: a=",), "a="),
        (('Set-Cookie: a="b c"',), 'a="b c"'),
        (("Set-Cookie: nonsense", "Set-Cookie: =b", "Set-Cookie: a = b ;x"), "a=b"),
        (("Set-Cookie: a=b\r\n c", "Set-Cookie: d=e"), "d=e"),
        (("Set-Cookie: s=1; Secure", "Set-Cookie: t=2; SECURE ; x", "Set-Cookie: a=b"), "a=b"),
        (("Set-Cookie: a=b; insecure", "Set-Cookie: secure=c"), "a=b; secure=c"),
    ],
)
def test_a_cookie_wall_is_passed(
    origin: Origin, fetch: Fetch, cookies: tuple[str, ...], sent: str
) -> None:
    url = origin.serve("/file", wall(*cookies))
    assert fetch(url).md5 == md5(b"hello")
    assert f"\r\nCookie: {sent}" in origin.heads[1]
    assert "Cookie:" not in origin.heads[0]


def test_cookies_do_not_outlive_the_download(origin: Origin, fetch: Fetch) -> None:
    url = origin.serve("/file", wall("Set-Cookie: a=b"))
    fetch(url)
    fetch(url)
    assert ["Cookie: a=b" in head for head in origin.heads] == [False, True, False, True]


def test_cookies_go_to_no_other_host(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> bool:
        host = peer.headers["host"].partition(":")[0]
        target = origin.url("/next", {"a.test": "b.a.test", "b.a.test": "a.test"}[host])
        cookie = f"Set-Cookie: {host[0]}=1; Domain=a.test"
        return peer.reply(b"", "302 Found", f"Location: {target}", cookie)

    origin.serve("/next", lambda peer: peer.reply(b"hello"))
    origin.serve("/file", script)
    assert fetch(origin.url("/file", "a.test")).md5 == md5(b"hello")
    assert "Cookie:" not in origin.heads[1]


def test_cookies_come_back_to_their_host(origin: Origin, fetch: Fetch) -> None:
    def to(url: str, *headers: str) -> Script:
        return lambda peer: peer.reply(b"", "302 Found", f"Location: {url}", *headers)

    origin.serve("/1", to(origin.url("/2", "b.test"), "Set-Cookie: a=1"))
    origin.serve("/2", to(origin.url("/3", "a.test"), "Set-Cookie: b=2"))
    origin.serve("/3", b"hello")
    fetch(origin.url("/1", "a.test"))
    assert ["Cookie: a=1" in head for head in origin.heads] == [False, False, True]
    assert not any("b=2" in head for head in origin.heads)


def test_cookies_are_bounded(origin: Origin, fetch: Fetch) -> None:
    many = [f"Set-Cookie: {number}=x" for number in range(1000)]
    large = [f"Set-Cookie: large{number}={'x' * 3000}" for number in range(5)]
    fetch(origin.serve("/many", wall(*many)))
    fetch(origin.serve("/big", wall(*large)))
    assert origin.heads[1].count("=x") == 50
    assert origin.heads[3].count("large") == 2


def test_a_wall_that_wants_other_cookies_says_so(origin: Origin, fetch: Fetch) -> None:
    url = origin.serve("/", reply(b"", "302 Found", "Location: /", "Set-Cookie: a=b"))
    failure = failure_of(fetch, url)
    assert failure.code == "too_many_redirects"
    assert "cookies" in failure.message


def test_a_broken_download_goes_on_with_its_cookies(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> None:
        if "cookie" in peer.headers:
            part(peer, BIG, 2_000_000, ETAG)
        else:
            peer.reply(b"", "302 Found", "Location: /file", "Set-Cookie: a=b")

    assert fetch(origin.serve("/file", script)).md5 == md5(BIG)
    assert "Cookie: a=b\r\nRange:" in origin.heads[2]
