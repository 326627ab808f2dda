"""The parser of URLs: good ones, those that it refuses, and that it sends what curl sends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from md5light.download import urls
from md5light.errors import Refused
from tests.origin import Origin


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("http://example.org", "http://example.org/"),
        ("HTTPS://EXAMPLE.org:443/A/b", "https://example.org/A/b"),
        ("http://example.org.:80/#part", "http://example.org/"),
        ("http://example.org:/", "http://example.org/"),
        ("http://example.org:0008080/", "http://example.org:8080/"),
        ("http://example.org?q=/../x", "http://example.org/?q=/../x"),
        ("http://example.org/a/./b/../../../c//d/..", "http://example.org/c//"),
        ("http://example.org/%zz%2e%2e/%41?a%20b+c", "http://example.org/%zz%2e%2e/%41?a%20b+c"),
        ("http://bücher.example/ü?ü", "http://xn--bcher-kva.example/%C3%BC?%C3%BC"),
        ("http://ß.example/", "http://xn--zca.example/"),
        ("http://my_bucket.example/", "http://my_bucket.example/"),
        ("http://r1---x.example/", "http://r1---x.example/"),
        ("http://127.1:8000/", "http://127.0.0.1:8000/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f.0x0.0.1/", "http://127.0.0.1/"),
        ("http://017700000001/", "http://127.0.0.1/"),
        ("http://0x7F000001./", "http://127.0.0.1/"),
        ("http://１２７。０。０。１/", "http://127.0.0.1/"),
        ("http://0/", "http://0.0.0.0/"),
        # Persian, and emoji with a selector or a joiner, as browsers show them in the address bar.
        (
            "http://h.example/نامه\u200cای?x",
            "http://h.example/%D9%86%D8%A7%D9%85%D9%87%E2%80%8C%D8%A7%DB%8C?x",
        ),
        ("http://h.example/\u2764\ufe0f", "http://h.example/%E2%9D%A4%EF%B8%8F"),
        (
            "http://h.example/?\U0001f469\u200d\U0001f4bb",
            "http://h.example/?%F0%9F%91%A9%E2%80%8D%F0%9F%92%BB",
        ),
        ("http://h.example/葛\U000e0100", "http://h.example/%E8%91%9B%F3%A0%84%80"),
        ("http://نامه\u200cای.example/", "http://xn--mgba3gch31f060k.example/"),
        ("http://[2606:4700:0:0:0:0:0:1111]:8080/", "http://[2606:4700::1111]:8080/"),
        ("http://[::FFFF:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
    ],
)
def test_a_url_is_normalised(text: str, normal: str) -> None:
    assert str(urls.parse(text)).replace("::ffff:127.0.0.1", "::ffff:7f00:1") == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "//example.org/",
        "/path",
        "ftp://example.org/",
        "httpſ://example.org/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http:example.org",
        "http:/example.org",
        "http://",
        "http:///path",
        "http://:80/",
        "http://user@example.org/",
        "http://user:secret@example.org/",
        "http://@example.org/",
        "http://example.org:0/",
        "http://example.org:65536/",
        "http://example.org:1000080/",
        "http://example.org:99999999999999999999999999/",
        "http://example.org:-1/",
        "http://example.org:+80/",
        "http://example.org:８０/",
        "http://example.org:80:80/",
        "http://a..b/",
        "http://.a/",
        "http://./",
        f"http://{'a' * 64}.example/",
        f"http://{'a.' * 130}example/",
        "http://ex%61mple.org/",
        "http://ex*mple.org/",
        "http://☃☃.example/\u200d",
        "http://256.1.1.1/",
        "http://1.2.3.4.5/",
        "http://1.2.3.08/",
        "http://0x1ffffffff/",
        "http://example.1/",
        "http://[::1/",
        "http://[::1]x/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[v1.x]/",
        "http://[1.2.3.4]/",
        "http://::1/",
        " http://example.org/",
        "http://example.org/ ",
        "http://example.org/a b",
        "http://example.org/\t",
        "http://example.org/\r\nHost: other",
        "http://example.org/\x00",
        "http://example.org/\x7f",
        "http://example.org/\x85",
        "http://example.org/\xa0",
        "http://example.org/\xad",
        "http://example.org/\u200b",
        "http://example.org/\u2028",
        "http://example.org/\u202e",
        "http://example.org/\u2066",
        "http://example.org/\u3164",
        "http://example.org/\u180e",
        "http://a\ufe0f.example/",
        "http://a\u200cb.example/",
        "http://local\u200dhost/",
        "http://example.org/\ufeff",
        "http://example.org/\U000e0041",
        "http://example.org/\ud800",
        "http://example.org\\@evil.example/",
        "http://example.org/\\",
        "http://example.org/" + "a" * 8174,
    ],
)
def test_what_is_no_url_or_hides_something_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        urls.parse(text)
    assert refused.value.code == "invalid_url"
    assert refused.value.message.startswith("The URL")


def test_the_longest_url_is_accepted() -> None:
    text = "http://example.org/" + "a" * (8192 - 19)
    assert urls.parse(text).text == text


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (b"http://other.example/x", "http://other.example/x"),
        (b"//other.example/x", "https://other.example/x"),
        (b"/x", "https://h.example:8443/x"),
        (b"x", "https://h.example:8443/a//b/x"),
        (b"../x?r", "https://h.example:8443/a//x?r"),
        (b"?r", "https://h.example:8443/a//b/c?r"),
        (b"#part", "https://h.example:8443/a//b/c?q=/s"),
        (b" /sp ace ", "https://h.example:8443/sp%20ace"),
        ("/ü".encode(), "https://h.example:8443/%C3%BC"),
        (b"/\xfc", "https://h.example:8443/%FC"),
        (
            "http://bücher.example/\u2764\ufe0f?\u200d\u3000".encode(),
            "http://xn--bcher-kva.example/%E2%9D%A4%EF%B8%8F?%E2%80%8D%E3%80%80",
        ),
        (b"x\xe2\x80//\xfc", "https://h.example:8443/a//b/x%E2%80//%FC"),
        (b"/" + b"a" * 32000, "https://h.example:8443/" + "a" * 32000),
        (b"\\files\\a.zip", "https://h.example:8443/a//b/\\files\\a.zip"),
        (b"/x?a\\b", "https://h.example:8443/x?a\\b"),
    ],
)
def test_a_location_is_resolved(location: bytes, expected: str) -> None:
    base = urls.parse("https://h.example:8443/a//b/c?q=/s")
    assert urls.join(base, location).text == expected


@pytest.mark.parametrize(
    "location",
    [
        b"",
        b" ",
        b"ftp://h/",
        b"file:///etc/passwd",
        b"http:/x",
        b"http://u:p@h/",
        b"//",
        b"http://[",
        b"/\x01",
        b"//\xfc.example/",
        b"//sp ace.example/",
        "//h.example\u200b/".encode(),
    ],
)
def test_a_location_that_leads_nowhere_is_refused(location: bytes) -> None:
    with pytest.raises(Refused):
        urls.join(urls.parse("http://h.example/a"), location)


@pytest.mark.parametrize(
    "path",
    ["", "?q", "/a/../b", "/a/./b/", "//x//y", "/..", "/a/.", "/a?b#c", "/%2e%2e/a", "/%zz",
     "/.../x", "/x/..?q",
     "/a\"<>|^`{}'", "/?q=/../x", "/a%20b+c"],
)  # fmt: skip
def test_the_path_is_sent_as_curl_sends_it(path: str) -> None:
    with Origin() as origin:
        subprocess.run(["curl", "-sg", "-o", "/dev/null", origin.url(path)], check=True)
        assert origin.heads[0].split(" ")[1] == urls.parse(origin.url(path)).target


def test_the_parser_is_light() -> None:
    code = (
        "import sys; from md5light.download import guard, urls;"
        " print({'requests', 'urllib3'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
