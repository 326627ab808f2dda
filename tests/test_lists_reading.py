"""What lists may look like, and what is an error of a line or of the whole list."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from md5light.errors import Refused
from md5light.lists.lines import BadLine, Line
from md5light.lists.reading import Reading, read
from md5light.lists.text import MAX_LINE_BYTES

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
SHA1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SHA512 = SHA256 * 2
DIGESTS = {"md5": MD5, "sha1": SHA1, "sha256": SHA256, "sha512": SHA512}

Found = tuple[str, str | None, str | None, int | None, dict[str, str]]


def reading(text: str | bytes, format: str = "auto", **options: Any) -> Reading:
    return read([text.encode() if isinstance(text, str) else text], format, **options)


def lines(text: str | bytes, format: str = "auto", **options: Any) -> list[Line]:
    found = list(reading(text, format, **options))
    assert [line for line in found if isinstance(line, BadLine)] == []
    return [line for line in found if isinstance(line, Line)]


def one(text: str | bytes, format: str = "auto", **options: Any) -> Line:
    [line] = lines(text, format, **options)
    return line


def bad(text: str | bytes, format: str = "auto", **options: Any) -> list[tuple[int, str]]:
    """Return number and code of each bad line."""
    found = [line for line in reading(text, format, **options) if isinstance(line, BadLine)]
    for line in found:
        assert line.message.endswith("."), line
        assert "\n" not in line.message
    return [(line.number, line.code) for line in found]


def refusal(text: str | bytes, format: str = "auto", **options: Any) -> str:
    with pytest.raises(Refused) as caught:
        list(reading(text, format, **options))
    assert caught.value.message.endswith(".")
    return caught.value.code


def base64_of(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


# Which format


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("urls", "http://h/a"),
        ("urls", f"http://h/a,url,b {MD5}"),
        ("urls", f"@EXPLICIT\nhttp://h/a#{MD5}"),
        ("urls", f"http://h/a 5 {MD5}"),
        ("sums", f"{MD5}  http://h/a"),
        ("sums", f"\\{MD5} *http://h/a\\\\"),
        ("sums", f"{base64_of(SHA256)}  http://h/a"),
        ("bsd", f"MD5 (http://h/a) = {MD5}"),
        ("bsd", f"SHA256(http://h/a)= {SHA256}"),
        ("csv", "url\nhttp://h/a"),
        ("csv", f"md5,URL\n{MD5},http://h/a"),
        ("csv", '"id","url"\n1,http://h/a'),
        ("csv", "name,size\nhttp://h/a,5"),
        ("tsv", "url\tsize\nhttp://h/a\t5"),
        ("tsv", "filename\tsize\nhttp://h/a\t5"),
        ("ndjson", '{"url":"http://h/a"}'),
        ("json", '[{"url":"http://h/a"}]'),
        ("gcs", "TsvHttpData-1.0\nhttp://h/a"),
        ("pooch", f"a md5:{MD5} http://h/a"),
        ("pooch", f"'a b' {SHA256} 'http://h/a'"),
    ],
)
@pytest.mark.parametrize("before", ["", "\n \n\t\r\n# a comment\n  # another\n", "\ufeff"])
def test_the_first_line_that_says_something_decides(format: str, text: str, before: str) -> None:
    found = reading(before + text)
    assert found.format == format
    [line] = found
    assert isinstance(line, Line)
    assert line.url.startswith("http://h/a")


def test_the_format_is_chosen_once() -> None:
    found = list(reading(f'http://h/a\n{{"url":"http://h/b"}}\n{MD5}  http://h/c'))
    assert [type(line) for line in found] == [Line, BadLine, BadLine]


def test_a_format_that_is_named_is_taken() -> None:
    assert bad("http://h/a", "sums") == [(1, "invalid_line")]
    assert one("name\nhttp://h/a", "csv").url == "http://h/a"
    assert refusal("http://h/a", "nonsense") == "unknown_format"
    assert refusal("http://h/a", "gcs") == "invalid_header"


# Bytes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_encodings(encoding: str, end: str, size: int) -> None:
    text = end.join([f"{MD5}  grün/日本/𝄞", f"{MD5} *b", ""])
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    data = (mark + text).encode(encoding)
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    found = list(read(chunks, base="http://h/"))
    assert [line.name for line in found if isinstance(line, Line)] == ["grün/日本/𝄞", "b"]
    assert [line.sent for line in found] == text.split(end)[:2]


@pytest.mark.parametrize(
    "data",
    [
        b"http://h/a\xc3\nhttp://h/b",
        b"http://h/\xff\nhttp://h/b",
        b"http://h/\xed\xa0\x80\nhttp://h/b",
        b"http://h/\0\nhttp://h/b",
        "\ufeffhttp://h/a\ud834\nhttp://h/b".encode("utf-16-le", "surrogatepass"),
        b"http://h/" + b"a" * MAX_LINE_BYTES + b"\nhttp://h/b",
        b"\x1f\x8b\x08\0\n\nhttp://h/b",
    ],
)
def test_a_line_that_is_no_text_spoils_no_other(data: bytes) -> None:
    first, second = reading(data)
    assert isinstance(first, BadLine)
    assert first.number == 1
    assert first.code in ("invalid_text", "line_too_long")
    assert len(first.sent) <= 4000
    assert first.sent.encode("utf-8").count(b"\0") == 0
    assert isinstance(second, Line)
    assert second.url == "http://h/b"


def test_a_list_that_ends_within_a_character() -> None:
    assert bad("http://h/a\nhttp://h/ü".encode()[:-1]) == [(2, "invalid_text")]
    assert bad("\ufeffhttp://h/a\nhttp://h/ü".encode("utf-16-le")[:-1]) == [(2, "invalid_text")]


@pytest.mark.parametrize(
    "text", ["", "\n\n \r\n", "# nothing\n#", "\ufeff", "url,md5\n", "[]", "@EXPLICIT\n"]
)
def test_an_empty_list(text: str) -> None:
    assert refusal(text) == "empty_list"


def peak(chunks: Iterable[bytes]) -> int:
    """Return the bytes that reading takes at most."""
    tracemalloc.start()
    try:
        for _ in read(chunks):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        ("http://h/a\n", b"\n" * 3_000),
        ("http://h/a\n", b"a" * 65536),
        ("url,name\n", b'http://h/a,"' + b"b" * 30000 + b"\n"),
        ("url,name\n", b"\n" * 3_000),
        ('[{"url":"http://h/a"}', b' , {"url":"http://h/a"}' * 500),
        ("", b"# comment\n\n" * 2000),
    ],
)
def test_memory_does_not_grow_with_the_list(head: str, chunk: bytes) -> None:
    def chunks(count: int) -> Iterator[bytes]:
        yield head.encode()
        for _ in range(count):
            yield chunk
        yield b"]" if head.startswith("[") else b"\nhttp://h/z\n"

    assert peak(chunks(30)) < peak(chunks(10)) + 100_000


@pytest.mark.parametrize(
    ("format", "line"),
    [
        ("bsd", "MD5 (" + ")=" * 30_000 + " y z"),
        ("sums", "a" + " " * 60_000),
        ("urls", "http://h/a" + " x" * 30_000),
        ("pooch", "a'' " * 15_000),
        ("csv", 'name,url\n"' + '""' * 30_000),
        ("ndjson", '{"url":' + "1" * 60_000 + "}"),
    ],
)
@pytest.mark.timeout(10)
def test_no_line_takes_long(format: str, line: str) -> None:
    assert bad(f"{line}\n" * 20, format)


def test_a_list_in_one_piece_of_a_long_line() -> None:
    assert bad(b"http://h/a\nhttp://h/" + b"b" * 32 * 2**20) == [(2, "line_too_long")]


def test_too_many_lines() -> None:
    for text in (
        "http://h/a\nhttp://h/a\nhttp://h/b",
        f"MD5 (a) = {MD5}\nMD5 (a) = {MD5}\nMD5 (b) = {MD5}",
    ):
        assert len(lines(text, base="http://h", max_lines=3)) == 3
        assert refusal(text, base="http://h", max_lines=2) == "too_many_lines"


# Values


@pytest.mark.parametrize("algorithm", DIGESTS)
def test_spellings_of_a_digest(algorithm: str) -> None:
    digest = DIGESTS[algorithm]
    spellings = [
        digest,
        digest.upper(),
        base64_of(digest),
        base64_of(digest).replace("+", "-").replace("/", "_"),
        f"{algorithm}:{digest}",
        f"{algorithm.upper()}:{digest.upper()}",
        f"{algorithm}-{base64_of(digest)}",
        f"{algorithm.replace('sha', 'sha-')}:{digest}",
    ]
    for spelling in spellings:
        expected = {algorithm: digest}
        assert one(f"http://h/a {spelling}").expected == expected
        assert one(f"http://h/a 5 {spelling}").size == 5
        for column in ("checksum", "digest", "hash", algorithm):
            assert one(f"url,{column}\nhttp://h/a,{spelling}").expected == expected
            assert one(json.dumps({"url": "http://h/a", column: spelling})).expected == expected


@pytest.mark.parametrize("nothing", ["", "-", "_", "null", "none", "None", "NULL", " - "])
@pytest.mark.parametrize("column", ["md5", "sha256", "hash", "size", "length"])
def test_nothing_expected(nothing: str, column: str) -> None:
    line = one(f"url,{column},id\nhttp://h/a,{nothing},x")
    assert (line.size, line.expected) == (None, {})
    line = one(json.dumps({"url": "http://h/a", column: nothing}))
    assert (line.size, line.expected) == (None, {})


@pytest.mark.parametrize(
    "wrong",
    [
        MD5[:-1],
        MD5 + "0",
        "g" * 32,
        "n/a",
        "nan",
        "0",
        "unknown",
        f"crc32c:{MD5}",
        f"sha1:{MD5}",
        f"md5:{SHA1}",
        f"md5={MD5}",
        base64_of(MD5)[:-2],
        "０" * 32,
        "d41d8cd98f00b204e9800998ecf84 7e",
    ],
)
def test_what_is_no_digest_is_an_error(wrong: str) -> None:
    assert bad(f"url,checksum\nhttp://h/a,{wrong}") == [(2, "invalid_digest")]
    assert bad(json.dumps({"url": "http://h/a", "checksum": wrong})) == [(1, "invalid_digest")]
    assert len(bad(f"http://h/a 5 {wrong}")) == 1


def test_a_digest_of_another_algorithm_than_its_column() -> None:
    assert bad(f"url,md5\nhttp://h/a,{SHA1}") == [(2, "invalid_digest")]
    assert bad(f"url,md5\nhttp://h/a,sha1:{SHA1}") == [(2, "invalid_digest")]
    assert bad(f"MD5 (http://h/a) = {SHA1}") == [(1, "invalid_digest")]


@pytest.mark.parametrize(
    "size", ["1.5", "-1", "1e3", "1,000", "0x10", "٣", "9223372036854775808", "true"]
)
def test_what_is_no_size_is_an_error(size: str) -> None:
    assert bad(f'url,size\nhttp://h/a,"{size}"') == [(2, "invalid_size")]
    assert bad(f"http://h/a {size} {MD5}") == [(1, "invalid_size")]


def test_sizes() -> None:
    assert one("http://h/a 0").size == 0
    assert one(f"http://h/a - {MD5}").size is None
    assert one("http://h/a 9223372036854775807").size == 2**63 - 1
    assert one("http://h/a 5 -").size == 5
    assert one("http://h/a 12345678901234567890123456789012").expected == {
        "md5": "12345678901234567890123456789012"
    }


# URLs and names


@pytest.mark.parametrize(
    "url",
    [
        "http://h/a?b=c&d=%20#fragment",
        "HTTPS://H:8443/%7Ea/../b//c",
        "http://[::1]/é",
        "http://h",
        f"http://h/a#{MD5[:-1]}",
    ],
)
def test_urls_are_kept_byte_for_byte(url: str) -> None:
    assert one(f"  {url}\t").url == url
    assert one(f"{MD5}  {url}").url == url
    assert one(json.dumps({"url": url})).url == url


@pytest.mark.parametrize(
    "url", ["a", "/a", "//h/a", "ftp://h/a", "http:/h/a", "http://", "javascript:1"]
)
def test_a_url_must_be_absolute(url: str) -> None:
    assert bad(f"http://h/a\n{url}") == [(2, "invalid_url")]
    assert bad(f"{MD5}  {url}") == [(1, "invalid_url")]


@pytest.mark.parametrize("base", ["http://h/d", "http://h/d/"])
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("a", "http://h/d/a"),
        ("./a", "http://h/d/a"),
        ("././/a", "http://h/d/a"),
        ("a b#c?d%20", "http://h/d/a%20b%23c%3Fd%2520"),
        ("é/日", "http://h/d/%C3%A9/%E6%97%A5"),
        ("../a", "http://h/d/../a"),
        (".a", "http://h/d/.a"),
        ("/a", "http://h/a"),
        ("https://g/a b", "https://g/a b"),
        ("*a", "http://h/d/%2Aa"),
        (" a ", "http://h/d/%20a%20"),
    ],
)
def test_names_are_joined_to_the_base(base: str, name: str, url: str) -> None:
    for text in (
        f"{MD5}  {name}",
        f"{MD5} *{name}",
        f"MD5 ({name}) = {MD5}",
        f'name,md5\n"{name}",{MD5}',
        json.dumps({"filename": name, "md5": MD5}),
    ):
        line = one(text, base=base)
        assert line.url == url
        assert line.expected == {"md5": MD5}
        assert line.name == (None if "://" in name else name)


def test_relative_urls_are_joined_byte_for_byte() -> None:
    assert one("a%20b?c", base="http://h/d").url == "http://h/d/a%20b?c"
    assert one('{"url":"/a%20b"}', base="http://h/d").url == "http://h/a%20b"
    assert bad("ftp://h/a", base="http://h/d") == [(1, "invalid_url")]


@pytest.mark.parametrize(
    "base", ["h/d", "ftp://h/", "http://h/?a", "http://h/#a", "http:///a", "http://h/a b"]
)
def test_what_can_be_no_base(base: str) -> None:
    assert refusal("a", base=base) == "invalid_base"


def test_urls_are_checked_by_the_caller() -> None:
    def check(url: str) -> None:
        if "bad" in url:
            raise Refused("port_not_allowed", "No.")

    assert bad("http://h/a\nhttp://h/bad", check_url=check) == [(2, "port_not_allowed")]
    assert bad(f"{MD5}  bad", check_url=check, base="http://h") == [(1, "port_not_allowed")]


# urls


def test_urls_have_no_more_than_a_size_and_a_digest() -> None:
    assert bad(f"http://h/a 5 {MD5} x\nhttp://h/a x\nhttp://h/a {MD5} 5") == [
        (1, "invalid_line"),
        (2, "invalid_digest"),
        (3, "invalid_size"),
    ]


def test_conda() -> None:
    found = lines(
        f"# platform: linux-64\n@EXPLICIT\nhttp://h/a#{MD5}\nhttp://h/b#sha256:{SHA256}\n"
    )
    assert [line.url for line in found] == ["http://h/a", "http://h/b"]
    assert [line.expected for line in found] == [{"md5": MD5}, {"sha256": SHA256}]
    assert [line.number for line in found] == [3, 4]


def test_a_fragment_that_contradicts() -> None:
    assert one(f"http://h/a#{MD5} 5 {SHA1}").expected == {"md5": MD5, "sha1": SHA1}
    assert one(f"http://h/a#{MD5} {MD5}").expected == {"md5": MD5}
    assert bad(f"http://h/a#{MD5} {MD5[::-1]}") == [(1, "contradiction")]


# sums and bsd


def test_escapes_of_gnu() -> None:
    assert one(f"\\{MD5}  a\\\\b\\nc\\rd", base="http://h").name == "a\\b\nc\rd"
    assert one(f"{MD5}  a\\nb", base="http://h").name == "a\\nb"
    assert one(f"\\MD5 (a\\nb) = {MD5}", base="http://h").name == "a\nb"
    for name in ("a\\", "a\\tb", "\\0"):
        assert bad(f"\\{MD5}  {name}", base="http://h") == [(1, "invalid_name")]


def test_the_last_parenthesis_counts() -> None:
    line = one(f"MD5 (a) = {MD5[::-1]}) = {MD5}", base="http://h")
    assert line.name == f"a) = {MD5[::-1]}"
    assert line.expected == {"md5": MD5}


def test_algorithms_of_one_name_are_one_line() -> None:
    found = lines(
        f"MD5 (a) = {MD5}\nMD5 (b) = {MD5}\n# and\nSHA1 (b) = {SHA1}\nSHA256(a)= {SHA256}\n"
        f"SHA2-512(a)= {SHA512}",
        base="http://h",
    )
    assert [(line.number, line.name, dict(line.expected)) for line in found] == [
        (1, "a", {"md5": MD5, "sha256": SHA256, "sha512": SHA512}),
        (2, "b", {"md5": MD5, "sha1": SHA1}),
    ]
    assert found[1].sent == f"MD5 (b) = {MD5}\nSHA1 (b) = {SHA1}"


@pytest.mark.parametrize("order", ["MD5 MD5 SHA1 SHA1", "MD5 SHA1 MD5 SHA1"])
def test_a_name_that_stands_twice_is_two_lines(order: str) -> None:
    text = "\n".join(f"{name} (a) = {DIGESTS[name.lower()]}" for name in order.split())
    found = lines(text, base="http://h")
    assert [dict(line.expected) for line in found] == [{"md5": MD5, "sha1": SHA1}] * 2


def test_an_algorithm_that_is_not_supported() -> None:
    assert bad(f"MD5 (a) = {MD5}\nBLAKE2b (a) = {SHA512}", base="http://h") == [
        (2, "unsupported_digest")
    ]


# csv and tsv


def test_columns_in_any_order_and_spelling() -> None:
    found = one(f'id;x, Path ,BYTES,"Sha256",URL\n7;,"a,\n""b""",5,{SHA256},http://h/a\n')
    assert found == Line(
        2,
        f'7;,"a,\n""b""",5,{SHA256},http://h/a',
        "http://h/a",
        'a,\n"b"',
        None,
        5,
        {"sha256": SHA256},
    )


def test_unknown_columns_are_named() -> None:
    found = reading("url,md5sum,note\nhttp://h/a,x,y")
    assert found.ignored == ("md5sum", "note")
    assert found.header == "url,md5sum,note"


@pytest.mark.parametrize(
    "header", ["url,url", "url,URL ", "md5,md5,url", "md5,size", "id", '"url', 'url,"a"b']
)
def test_headers_that_can_not_be_read(header: str) -> None:
    assert refusal(f"{header}\nhttp://h/a,http://h/b", "csv") == "invalid_header"


def test_columns_that_mean_the_same() -> None:
    text = f"url,size,length,md5,hash,name,filename\nhttp://h/a,5,,{MD5},{SHA1},,b\n"
    line = one(text)
    assert (line.size, line.expected, line.name) == (5, {"md5": MD5, "sha1": SHA1}, "b")
    assert bad("url,size,bytes\nhttp://h/a,5,5\nhttp://h/a,5,6") == [(3, "contradiction")]
    assert bad(f"url,md5,hash\nhttp://h/a,{MD5},{MD5.upper()}\nhttp://h/a,{MD5},{MD5[::-1]}") == [
        (3, "contradiction")
    ]


def test_rows_of_another_length_than_the_header() -> None:
    found = lines("url,md5,name\nhttp://h/a\nhttp://h/b,,c,,\n,,\n\n")
    assert [(line.number, line.name) for line in found] == [(2, None), (3, "c")]
    assert bad("url,md5\nhttp://h/a,,x\n,-\n") == [(2, "invalid_csv"), (3, "missing_url")]


def test_a_quote_without_its_end_spoils_what_it_takes_in() -> None:
    assert bad('url,name\nhttp://h/a,"b\nhttp://h/c,d\n') == [(2, "invalid_csv")]
    assert bad('url,name\nhttp://h/a,"b"c\nhttp://h/c,d\n') == [(2, "invalid_csv")]
    rows = "http://h/c,d\n" * 10_000
    found = list(reading(f'url,name\nhttp://h/a,"b\n{rows}'))
    assert [line.code for line in found if isinstance(line, BadLine)] == ["line_too_long"]
    assert len(found) > 4000


def test_comments_in_tables_need_a_space() -> None:
    found = lines("id,url\n#1,http://h/a\n# failed: no\n2,http://h/b\n")
    assert [(line.number, line.id) for line in found] == [(2, "#1"), (4, "2")]


def test_formulas_are_text() -> None:
    found = one('url,name,id\nhttp://h/a,"=1+1",@SUM(A1)\n')
    assert (found.name, found.id) == ("=1+1", "@SUM(A1)")


# ndjson and json


def test_the_keys_of_bdbag_and_drs() -> None:
    line = one(
        json.dumps(
            [
                {
                    "url": "http://h/a",
                    "length": 5,
                    "filename": "data/a",
                    "sha256": SHA256,
                    "md5": None,
                }
            ]
        )
    )
    assert (line.size, line.name, line.expected) == (5, "data/a", {"sha256": SHA256})
    drs = {
        "id": "x1",
        "url": "http://h/a",
        "size": 5,
        "created_time": "2026-01-01T00:00:00Z",
        "checksums": [
            {"type": "sha-256", "checksum": SHA256},
            {"type": "MD5", "checksum": MD5},
            {"type": "crc32c", "checksum": "AAAAAA=="},
        ],
    }
    line = one(json.dumps(drs))
    assert (line.id, line.size, line.expected) == ("x1", 5, {"sha256": SHA256, "md5": MD5})


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"url": 5}, "invalid_url"),
        ({"url": None}, "missing_url"),
        ({"url": ["http://h/a"]}, "invalid_value"),
        ({"size": True}, "invalid_value"),
        ({"size": 1.5}, "invalid_value"),
        ({"size": -1}, "invalid_size"),
        ({"md5": {}}, "invalid_value"),
        ({"md5": 5}, "invalid_digest"),
        ({"name": "a\0"}, "invalid_text"),
        ({"id": "\ud800"}, "invalid_text"),
        ({"url": "http://h/\ud800"}, "invalid_text"),
        ({"checksums": {}}, "invalid_value"),
        ({"checksums": ["a"]}, "invalid_value"),
        ({"checksums": [{"type": "crc32c", "checksum": "AAAAAA=="}]}, "unsupported_digest"),
        ({"checksums": [{"type": "md5", "checksum": "x"}]}, "invalid_digest"),
        ({"checksums": [{"type": "md5", "checksum": MD5}], "md5": MD5[::-1]}, "contradiction"),
    ],
)
def test_values_of_the_wrong_kind(fields: dict[str, object], code: str) -> None:
    good = {"url": "http://h/b"}
    wrong = {"url": "http://h/a", **fields}
    assert bad(f"{json.dumps(good)}\n\n{json.dumps(wrong)}") == [(3, code)]
    assert bad(json.dumps([good, wrong], indent=1)) == [(5, code)]


@pytest.mark.parametrize(
    "line", ["{", "[]", "5", '{"url":}', "{" * 60_000, '{"a":' * 10_000, "http://h/a"]
)
def test_lines_that_are_no_objects(line: str) -> None:
    [(number, _)] = bad('{"url":"http://h/a"}\n' + line)
    assert number == 2


@pytest.mark.parametrize(
    "text",
    [
        "[",
        '[{"url":"http://h/a"}',
        '[{"url":"http://h/a"},]',
        '[{"url":"http://h/a"} {"url":"http://h/a"}]',
        '[{"url":"http://h/a"}] x',
        "[" * 100_000,
        '[{"url":"http://h/' + "a" * 200_000 + '"}]',
    ],
)
def test_arrays_that_are_broken(text: str) -> None:
    assert refusal(text) in ("invalid_json", "line_too_long")


def test_an_array_in_any_chunks() -> None:
    data = json.dumps(
        [{"url": f"http://h/é{number}", "size": number} for number in range(50)],
        indent=2,
        ensure_ascii=False,
    ).encode()
    for size in (1, 7, 4096):
        chunks = (data[start : start + size] for start in range(0, len(data), size))
        found = [line for line in read(chunks) if isinstance(line, Line)]
        assert [line.size for line in found] == list(range(50))
        assert [line.number for line in found[:3]] == [2, 6, 10]
        assert json.loads(found[1].sent) == {"url": "http://h/é1", "size": 1}


# gcs and pooch


def test_transfer_lists_of_google() -> None:
    found = lines(
        f"TsvHttpData-1.0\r\nhttp://h/a\t0\t{base64_of(MD5)}\r\nhttp://h/b\nhttp://h/c\t5\n"
    )
    assert [(line.url, line.size, dict(line.expected)) for line in found] == [
        ("http://h/a", 0, {"md5": MD5}),
        ("http://h/b", None, {}),
        ("http://h/c", 5, {}),
    ]
    assert bad("TsvHttpData-1.0\nhttp://h/a\t1\t\tx") == [(2, "invalid_line")]


def test_registries_of_pooch() -> None:
    found = lines(f"# c\n'a b' sha1:{SHA1} http://h/x\nc {SHA256}\n", "pooch", base="http://h/d")
    assert [(line.name, line.url) for line in found] == [
        ("a b", "http://h/x"),
        ("c", "http://h/d/c"),
    ]
    assert bad(f"a\n'a md5:{MD5} http://h/a\n", "pooch") == [
        (1, "invalid_line"),
        (2, "invalid_line"),
    ]
