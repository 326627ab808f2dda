"""Batches over HTTP: what is taken and refused, and what is answered."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import socket
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.origin import Origin
from tests.postbox import Postbox
from tests.service import Service, running
from tests.waiting import wait_until

LINE = b"http://127.0.0.1:2000/file"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server without workers, so that batches stay as they are."""
    settings = {"max_batch_lines": 5000, "max_batch_bytes": 300_000, "max_unfinished_batches": 1000}
    with Service(tmp_path_factory.mktemp("service"), server=settings) as service:
        service.start_server()
        yield service


def post(service: Service, body: Any, type: str | None = None, **query: str) -> requests.Response:
    headers = {"Content-Type": type} if type else {}
    return requests.post(
        f"{service.url}/batches", data=body, headers=headers, params=query, timeout=20
    )


def multipart(service: Service, body: bytes, **fields: str) -> requests.Response:
    files = {"list": ("list.txt", body)}
    return requests.post(f"{service.url}/batches", data=fields, files=files, timeout=20)


def taken(answer: requests.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


def batch(service: Service, batch_id: str) -> dict[str, Any]:
    answer = requests.get(f"{service.url}/batches/{batch_id}", timeout=10)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    counts = dict(body["counts"])
    assert counts.pop("total") == sum(counts.values())
    return body


def manifest(service: Service, batch_id: str, **query: Any) -> requests.Response:
    url = f"{service.url}/batches/{batch_id}/manifest"
    return requests.get(url, params=query, timeout=20)


def entries(service: Service, batch_id: str, **query: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest(service, batch_id, **query).text.splitlines()]


def refused(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def stored(service: Service) -> int:
    """Count all rows that batches leave."""
    with contextlib.closing(sqlite3.connect(service.database)) as connection:
        tables = ("batches", "lines", "jobs")
        return sum(
            connection.execute(f"select count(*) from {table}").fetchone()[0] for table in tables
        )


def cancel(service: Service, batch_id: str) -> requests.Response:
    return requests.delete(f"{service.url}/batches/{batch_id}", timeout=20)


# --- a list is taken ------------------------------------------------------------------------------


def test_the_answer_is_exact(service: Service) -> None:
    answer = post(service, LINE + b"\n" + LINE + b"2\n" + LINE, type="text/plain")
    batch_id = taken(answer)["id"]
    assert UUID.fullmatch(batch_id)
    assert answer.text == f'{{"format":"urls","id":"{batch_id}","lines":3,"urls":2}}\n'
    assert answer.headers["Location"] == f"/batches/{batch_id}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "type",
    [
        None,
        "text/plain; charset=utf-8",
        "text/csv",
        "text/tab-separated-values",
        "application/x-ndjson",
        "application/json",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "TEXT/PLAIN",
        "image/png",
        "nonsense",
    ],
)
def test_a_body_of_any_type_is_a_list(service: Service, type: str | None) -> None:
    assert taken(post(service, LINE + b"?a=1&b=%20+\r\n", type))["lines"] == 1
    (entry,) = entries(service, taken(post(service, LINE + b"?a=1&b=%20+\r\n", type))["id"])
    assert entry["url"] == LINE.decode() + "?a=1&b=%20+"


LISTS = {
    "urls": b"# mine\n\n%s 5 d41d8cd98f00b204e9800998ecf8427e\n" % LINE,
    "sums": b"d41d8cd98f00b204e9800998ecf8427e  %s\n" % LINE,
    "bsd": b"MD5 (%s) = d41d8cd98f00b204e9800998ecf8427e\n" % LINE,
    "csv": b"url,md5,id\n%s,d41d8cd98f00b204e9800998ecf8427e,7\n" % LINE,
    "tsv": b"url\tmd5\n%s\td41d8cd98f00b204e9800998ecf8427e\n" % LINE,
    "ndjson": b'{"url":"%s","md5":"d41d8cd98f00b204e9800998ecf8427e"}\n' % LINE,
    "json": b'[{"url":"%s","md5":"d41d8cd98f00b204e9800998ecf8427e"}]' % LINE,
    "gcs": b"TsvHttpData-1.0\n%s\t0\t1B2M2Y8AsgTpgAmY7PhCfg==\n" % LINE,
    "pooch": b"a md5:d41d8cd98f00b204e9800998ecf8427e %s\n" % LINE,
}


@pytest.mark.parametrize("format", LISTS)
@pytest.mark.parametrize("given", ["auto", None, "itself"])
def test_every_format_is_taken(service: Service, format: str, given: str | None) -> None:
    query = {} if given is None else {"format": format if given == "itself" else given}
    answer = taken(post(service, LISTS[format], **query))
    assert (answer["format"], answer["lines"]) == (format, 1)
    (entry,) = entries(service, answer["id"])
    assert entry["url"] == LINE.decode()
    assert entry["expected"]["md5"] == "d41d8cd98f00b204e9800998ecf8427e"
    assert entry["status"] == "waiting"


def test_names_are_joined_to_the_base(service: Service) -> None:
    sums = b"d41d8cd98f00b204e9800998ecf8427e *./pool/a b.deb\n"
    answer = taken(post(service, sums, base="http://127.0.0.1:2000/debian"))
    (entry,) = entries(service, answer["id"])
    assert entry["url"] == "http://127.0.0.1:2000/debian/pool/a%20b.deb"
    assert entry["name"] == "./pool/a b.deb"


def test_a_form_brings_list_and_options(service: Service) -> None:
    answer = multipart(
        service, LINE, email="ann@localhost", name="Müller's, 2026", digests="sha256, sha1"
    )
    shown = batch(service, taken(answer)["id"])
    assert shown["name"] == "Müller's, 2026"
    assert shown["digests"] == ["sha1", "sha256"]
    assert shown["mail"] == "waiting"
    assert "ann@localhost" not in json.dumps(shown)


@pytest.mark.parametrize(
    ("body", "boundary"),
    [
        (b'--b\r\nContent-Disposition: form-data; name="list"\r\n\r\n%s\r\n--b--\r\n', "b"),
        (b"--b\r\ncontent-disposition: form-data; name=list\r\n\r\n%s\r\n--b--", '"b"'),
        (
            b"preamble\r\n--b\r\nContent-Type: text/csv\r\n"
            b'Content-Disposition: form-data; name="list"; filename="a;n=b\\".txt"\r\n\r\n%s'
            b'\r\n--b\r\nContent-Disposition: form-data; name="base"\r\n\r\n\r\n--b--\r\nepilogue',
            "b",
        ),
    ],
)
def test_forms_as_others_write_them(service: Service, body: bytes, boundary: str) -> None:
    answer = post(service, body % LINE, f"Multipart/Form-Data; boundary={boundary}")
    assert taken(answer)["lines"] == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_request"),
        (b"--b--\r\n", "missing_parameter"),
        (b'--b\r\nContent-Disposition: form-data; name="list"\r\n\r\nhttp://127.', "bad_request"),
        (b'--b\r\nContent-Disposition: form-data; name="list"\r\n', "bad_request"),
        (b"--c\r\n\r\n\r\n--c--", "bad_request"),
        (
            b'--b\r\nContent-Disposition: form-data; name="list"\r\n\r\nx\r\n'
            b'--b\r\nContent-Disposition: form-data; name="list"\r\n\r\nx\r\n--b--',
            "repeated_parameter",
        ),
        (b'--b\r\nContent-Disposition: form-data; name="list"\r\n\r\n\r\n--b--', "empty_list"),
        (
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\r\n'
            b'--b\r\nContent-Disposition: form-data; name="list"\r\n\r\nx\r\n--b--',
            "invalid_name",
        ),
    ],
)
def test_broken_forms_are_refused(service: Service, body: bytes, code: str) -> None:
    refused(post(service, body, "multipart/form-data; boundary=b"), 400, code)
    refused(post(service, body, "multipart/form-data"), 400, "bad_request")


def test_json_brings_list_and_options(service: Service) -> None:
    document = {
        "email": "ann@localhost",
        "name": 'a "b" \\ ]}',
        "lines": [{"url": LINE.decode(), "id": '"]}'}, LINE.decode() + "[]{}"],
        "digests": ["sha512"],
        "skip_invalid": True,
    }
    answer = taken(post(service, json.dumps(document, indent=1), "application/json"))
    assert (answer["format"], answer["lines"], answer["urls"]) == ("json", 2, 2)
    shown = batch(service, answer["id"])
    assert (shown["name"], shown["digests"]) == (document["name"], ["sha512"])
    assert shown["mail"] == "waiting"
    assert [entry["id"] for entry in entries(service, answer["id"])] == ['"]}', None]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "missing_parameter"),
        (b'{"lines":{}}', "missing_parameter"),
        (b'{"lines":"http://a/"}', "missing_parameter"),
        (b'{"lines":[],"lines":[]}', "missing_parameter"),
        (b'{"lines":[]}', "empty_list"),
        (b'{"lines":[', "bad_request"),
        (b'{"lines":["http://a/"]', "bad_request"),
        (b'{"lines":["http://a/]}', "bad_request"),
        (b'{"lines":["http://a/"]} x', "bad_request"),
        (b'{"lines" ["http://a/"]}', "bad_request"),
        (b'{"lines":["http://a/"] "name":"x"}', "bad_request"),
        (b'{"lines":["http://a/" "http://b/"]}', "invalid_json"),
        (b'{"lines":["http://a/"],"name":7}', "invalid_name"),
        (b'{"lines":["http://a/"],"email":["a"]}', "invalid_email"),
        (b'{"lines":["http://a/"],"name":"a","name":"b"}', "repeated_parameter"),
        (b'{"lines":["http://a/"],"url":"http://a/"}', "unknown_parameter"),
        (b'{"lines":' + b"[" * 70_000 + b"]" * 70_000 + b"}", "invalid_json"),
        (b'{"lines":["' + b'\\"' * 100_000, "bad_request"),
    ],
)
def test_broken_json_is_refused(service: Service, body: bytes, code: str) -> None:
    before = stored(service)
    refused(post(service, body, "application/json"), 400, code)
    assert stored(service) == before


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"format": "xls"}, "unknown_format"),
        ({"base": "ftp://a/"}, "invalid_base"),
        ({"digests": "sha3"}, "invalid_digests"),
        ({"digests": "md5;sha1"}, "invalid_digests"),
        ({"name": "a\nb"}, "invalid_name"),
        ({"name": "a" * 201}, "invalid_name"),
        ({"skip_invalid": "maybe"}, "invalid_skip_invalid"),
        ({"email": "ann@localhost"}, "unknown_parameter"),
        ({"url": "http://a/"}, "unknown_parameter"),
        ({"list": "x"}, "unknown_parameter"),
        ({"name": ["a", "b"]}, "repeated_parameter"),
    ],
)
def test_options_are_checked(service: Service, query: dict[str, Any], code: str) -> None:
    before = stored(service)
    refused(post(service, LINE, **query), 400, code)
    assert stored(service) == before


def test_empty_options_are_none(service: Service) -> None:
    options = dict.fromkeys(("format", "base", "digests", "name", "email", "skip_invalid"), "")
    shown = batch(service, taken(multipart(service, LINE, **options))["id"])
    assert (shown["name"], shown["digests"], shown["mail"]) == (None, [], "none")


@pytest.mark.parametrize("email", ["nobody", "a@b@c", "a b@localhost", "\xe9@localhost"])
def test_the_address_is_checked(service: Service, email: str) -> None:
    refused(multipart(service, LINE, email=email), 400, "invalid_email")


def test_an_option_is_given_once_in_query_and_form(service: Service) -> None:
    url = f"{service.url}/batches?format=urls"
    files = {"list": ("l", LINE)}
    assert requests.post(url, files=files, timeout=10).status_code == 202
    both = requests.post(url, files=files, data={"format": "urls"}, timeout=10)
    refused(both, 400, "repeated_parameter")


# --- bad lines ------------------------------------------------------------------------------------


def test_all_bad_lines_are_counted_and_the_first_hundred_shown(service: Service) -> None:
    before = stored(service)
    bad = [b"ftp://a/", b"http://a b/ c d e", b"http://10.0.0.1/", b"http://127.0.0.1:22/", b"\xff"]
    lines = [*([LINE] * 2000), *bad * 50]
    error = refused(post(service, b"\n".join(lines)), 400, "invalid_lines")
    assert error["count"] == 250
    assert "250 of 2,250 lines" in error["message"]
    assert len(error["lines"]) == 100
    assert [line["line"] for line in error["lines"][:5]] == [2001, 2002, 2003, 2004, 2005]
    assert {frozenset(line) for line in error["lines"]} == {frozenset(["code", "line", "message"])}
    assert [line["code"] for line in error["lines"][:5]] == [
        "invalid_url",
        "invalid_line",
        "address_not_allowed",
        "port_not_allowed",
        "invalid_text",
    ]
    wait_until(lambda: stored(service) == before)


def test_bad_lines_are_kept_as_failed_ones_where_that_is_wanted(service: Service) -> None:
    lines = [LINE, b"nope", b"", b"# comment", b"http://10.0.0.1/\xff", LINE]
    answer = taken(post(service, b"\n".join(lines), skip_invalid="yes"))
    assert (answer["lines"], answer["urls"]) == (4, 1)
    shown = batch(service, answer["id"])
    assert (shown["counts"]["failed"], shown["counts"]["waiting"]) == (2, 2)
    assert shown["errors"] == [
        {"code": "invalid_text", "count": 1, "lines": [3]},
        {"code": "invalid_url", "count": 1, "lines": [2]},
    ]
    assert [entry["status"] for entry in entries(service, answer["id"])] == [
        "waiting",
        "failed",
        "failed",
        "waiting",
    ]
    for format in ("csv", "md5sum", "bsd", "pooch", "failed"):
        for names in ("url", "path", "basename", "name"):
            answered = manifest(service, answer["id"], format=format, names=names)
            assert answered.status_code in (200, 409), (format, names)


@pytest.mark.parametrize("body", [b"", b"\n\n \n", b"# a\r\n#b\r\n", b"\xef\xbb\xbf", b"url,md5\n"])
def test_an_empty_list_is_refused(service: Service, body: bytes) -> None:
    refused(post(service, body), 400, "empty_list")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (os.urandom(1000).replace(b"\n", b"") + b"\xff", "invalid_lines"),
        (gzip.compress(LINE * 1000, mtime=1), "invalid_lines"),
        (LINE + "é".encode()[:1], "invalid_lines"),
        (b"\n" * 250_000 + b"x", "invalid_lines"),
        (b"\n" * 300_000, "empty_list"),
        (b"x" * 300_000, "invalid_lines"),
        (b"[" * 1000, "invalid_json"),
        (b"\xff\xfeh\x00t", "invalid_lines"),
        (b"url,url\n", "invalid_header"),
    ],
)
@pytest.mark.parametrize("skip_invalid", ["no", "yes"])
def test_bad_input_is_refused(service: Service, body: bytes, code: str, skip_invalid: str) -> None:
    before = stored(service)
    answer = post(service, body, skip_invalid=skip_invalid)
    if code == "invalid_lines" and skip_invalid == "yes":
        taken(answer)
    else:
        refused(answer, 400, code)
        wait_until(lambda: stored(service) == before)


# --- bounds ---------------------------------------------------------------------------------------


def test_as_many_lines_as_the_limit_are_taken(service: Service) -> None:
    before = stored(service)
    lines = [LINE] * 5000
    refused(post(service, b"\n".join([*lines, LINE])), 413, "too_many_lines")
    wait_until(lambda: stored(service) == before)
    assert taken(post(service, b"\n".join(lines)))["lines"] == 5000


@pytest.mark.parametrize("size", [300_000, 300_001, 365_000, 370_000, 3_000_000])
@pytest.mark.parametrize("way", ["raw", "chunked", "form"])
def test_as_many_bytes_as_the_limit_are_taken(service: Service, size: int, way: str) -> None:
    body = LINE + b"\n" * (size - len(LINE))
    if way == "form":
        answer = multipart(service, body)
    else:
        answer = post(service, iter([body[:1000], body[1000:]]) if way == "chunked" else body)
    if size <= 300_000:
        taken(answer)
    else:
        assert "300,000 bytes" in refused(answer, 413, "list_too_large")["message"]


def test_other_requests_keep_their_limit(service: Service) -> None:
    for path in ("/submit", "/batches/x/retry", "/jobs/x"):
        answer = requests.post(f"{service.url}{path}", data=b"a" * 200_000, timeout=10)
        refused(answer, 413, "body_too_large")


def test_compressed_bodies_are_refused(service: Service) -> None:
    for coding in ("gzip", "br", "gzip, identity"):
        answer = requests.post(
            f"{service.url}/batches",
            data=gzip.compress(LINE),
            headers={"Content-Encoding": coding},
            timeout=10,
        )
        assert "compressed" in refused(answer, 415, "unsupported_media_type")["message"]
    identity = {"Content-Encoding": "identity"}
    taken(requests.post(f"{service.url}/batches", data=LINE, headers=identity, timeout=10))


def test_a_page_of_another_site_sends_no_list(service: Service) -> None:
    before = stored(service)
    for headers in (
        {"Origin": "http://elsewhere.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://elsewhere.example"},
    ):
        headers = {"Content-Type": "text/plain", **headers}
        url = f"{service.url}/batches"
        refused(requests.post(url, data=LINE, headers=headers, timeout=10), 403, "cross_site")
        url += f"/{uuid.uuid4()}"
        refused(requests.delete(url, headers=headers, timeout=10), 403, "cross_site")
        refused(requests.post(f"{url}/retry", headers=headers, timeout=10), 403, "cross_site")
    assert stored(service) == before


def test_a_connection_cut_in_mid_list_leaves_nothing(service: Service) -> None:
    before = stored(service)
    with connect(service) as client:
        client.sendall(
            b"POST /batches HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"
            + (LINE + b"\n") * 5000
        )
        pid = service.commands[0].process.pid
        wait_until(lambda: any(temporary_files(pid)))
    wait_until(lambda: not temporary_files(pid))
    assert stored(service) == before


def connect(service: Service) -> socket.socket:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def temporary_files(pid: int) -> list[str]:
    """Name the files without a name that a process has open."""
    links = []
    for number in set(os.listdir(f"/proc/{pid}/fd")) - {"0", "1", "2"}:
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return [link for link in links if link.endswith(" (deleted)")]


def test_a_manifest_whose_client_has_gone_is_not_written(service: Service) -> None:
    batch_id = taken(post(service, b"\n".join(LINE + b"%d" % n for n in range(5000))))["id"]
    path = f"/batches/{batch_id}/manifest"
    with connect(service) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    service.commands[0].wait_for_line(rf" path={path} status=499 ")
    assert len(manifest(service, batch_id).text.splitlines()) == 5000


def test_only_so_many_large_lists_are_taken_at_once(service: Service) -> None:
    head = b"POST /batches HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(connect(service)) for _ in range(17)]
        for client in clients:
            client.sendall(head % 200_000 + LINE)
        answered = wait_until(lambda: [c for c in clients if has_answer(c)])
        assert answered
        answer = answered[0].recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: " in answer
        assert b'"code":"too_many_lists"' in answer
        # small ones need no file
        assert taken(post(service, LINE))["lines"] == 1
    wait_until(lambda: post(service, LINE + b"\n" * 100_000).status_code == 202)


def has_answer(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        client.setblocking(True)


@pytest.mark.slow
def test_no_batches_where_none_may_have_lines(tmp_path: Path) -> None:
    with Service(tmp_path, server={"max_batch_lines": 0}) as service:
        service.start_server()
        refused(post(service, LINE), 404, "not_found")
        refused(post(service, b"a" * 200_000), 413, "body_too_large")
        assert requests.get(f"{service.url}/batches/x", timeout=10).json() == {
            "status": "not found"
        }


@pytest.mark.slow
def test_only_so_many_batches_are_unfinished(tmp_path: Path) -> None:
    with Service(tmp_path, server={"max_unfinished_batches": 2, "max_unfinished": 1}) as service:
        service.start_server()
        first, _ = (taken(post(service, LINE + b"\n" + LINE + b"2"))["id"] for _ in range(2))
        full = post(service, LINE)
        refused(full, 503, "queue_full")
        assert int(full.headers["Retry-After"]) > 0
        service.submit(LINE.decode())  # lines don't count there
        assert cancel(service, first).status_code == 200
        taken(post(service, LINE))


@pytest.mark.slow
def test_each_line_counts_for_the_client_but_once_a_minute_a_batch_may_go_above(
    tmp_path: Path,
) -> None:
    with Service(tmp_path, server={"submits_per_minute": 5}) as service:
        service.start_server()
        taken(post(service, b"\n".join(LINE + b"%d" % n for n in range(20))))
        above = post(service, LINE)
        refused(above, 429, "too_many_submits")
        assert 0 < int(above.headers["Retry-After"]) <= 60
        submitted = requests.post(f"{service.url}/submit", data={"url": LINE.decode()}, timeout=10)
        refused(submitted, 429, "too_many_submits")


# --- Idempotency-Key ------------------------------------------------------------------------------


def with_key(
    service: Service, key: str, body: bytes = LINE, form: bool = False, **options: str
) -> requests.Response:
    return requests.post(
        f"{service.url}/batches",
        headers={"Idempotency-Key": key},
        timeout=20,
        **(
            {"files": {"list": ("l", body)}, "data": options}
            if form
            else {"data": body, "params": options}
        ),
    )


def test_a_repeat_gets_the_first_answer(service: Service) -> None:
    key = str(uuid.uuid4())
    first = with_key(service, key, name="a")
    again = with_key(service, key, name="a")
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["Location"] == first.headers["Location"]
    # the form marks its parts differently each time
    assert with_key(service, key, name="a", form=True).content == first.content
    cancel(service, first.json()["id"])
    assert with_key(service, key, name="a").content == first.content


def test_another_list_or_other_options_are_no_repeat(service: Service) -> None:
    key = str(uuid.uuid4())
    taken(with_key(service, key, name="a"))
    before = stored(service)
    for other in (
        with_key(service, key, body=LINE + b"\n", name="a"),
        with_key(service, key, name="b"),
        with_key(service, key),
        with_key(service, key, name="a", skip_invalid="yes"),
        with_key(service, key, name="a", email="ann@localhost", form=True),
    ):
        refused(other, 422, "idempotency_key_reused")
    assert stored(service) == before
    taken(with_key(service, str(uuid.uuid4()), name="a"))


def test_a_refused_list_uses_up_no_key(service: Service) -> None:
    key = str(uuid.uuid4())
    refused(with_key(service, key, body=b"nope"), 400, "invalid_lines")
    taken(with_key(service, key))


def test_repeats_at_the_same_time_make_one_batch(service: Service) -> None:
    key = str(uuid.uuid4())
    answers: list[requests.Response] = []
    body = b"\n".join(LINE + b"%d" % n for n in range(3000))
    threads = [
        threading.Thread(target=lambda: answers.append(with_key(service, key, body=body)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1


def test_keys_are_short(service: Service) -> None:
    refused(with_key(service, "k" * 256), 400, "invalid_idempotency_key")
    taken(with_key(service, "k" * 255))


# --- a batch is asked for -------------------------------------------------------------------------


def test_a_batch_is_shown(service: Service) -> None:
    answer = taken(post(service, LINE + b"\n" + LINE, name="mine"))
    response = requests.get(f"{service.url}/batches/{answer['id']}", timeout=10)
    assert response.headers["Cache-Control"] == "no-store"
    shown = response.json()
    created_at = shown.pop("created_at")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created_at)
    assert shown == {
        "id": answer["id"],
        "name": "mine",
        "status": "running",
        "counts": {
            "total": 2,
            "waiting": 2,
            "running": 0,
            "hashed": 0,
            "matched": 0,
            "mismatched": 0,
            "failed": 0,
            "canceled": 0,
        },
        "bytes": 0,
        "errors": [],
        "finished_at": None,
        "mail": "none",
        "format": "urls",
        "digests": [],
    }


@pytest.mark.parametrize(
    "batch_id", ["x", str(uuid.UUID(int=0)), "%00", "%ff", "a" * 1000, "..", "'", "é"]
)
def test_a_batch_that_does_not_exist_is_not_found(service: Service, batch_id: str) -> None:
    url = f"{service.url}/batches/{batch_id}"
    answers = [
        requests.get(url, timeout=10),
        requests.get(f"{url}/manifest", timeout=10),
        requests.delete(url, timeout=10),
        requests.post(f"{url}/retry", timeout=10),
    ]
    if batch_id == "..":  # the client has resolved it
        return
    for answer in answers:
        assert (answer.status_code, answer.text) == (404, '{"status":"not found"}\n')


def test_other_methods_are_not_allowed(service: Service) -> None:
    for path, allowed in (
        ("/batches", {"POST"}),
        ("/batches/x", {"GET", "HEAD", "DELETE"}),
        ("/batches/x/manifest", {"GET", "HEAD"}),
        ("/batches/x/retry", {"POST"}),
    ):
        for method in ("PUT", "PATCH", "GET", "POST", "DELETE"):
            if method not in allowed:
                answer = requests.request(method, service.url + path, timeout=10)
                refused(answer, 405, "method_not_allowed")
                assert set(answer.headers["Allow"].split(",")) == allowed


def test_head_is_get_without_the_body(service: Service) -> None:
    batch_id = taken(post(service, LINE))["id"]
    cancel(service, batch_id)
    for path in (f"/batches/{batch_id}", f"/batches/{batch_id}/manifest", "/batches/x/manifest"):
        head = requests.head(service.url + path, timeout=10)
        get = requests.get(service.url + path, timeout=10)
        assert (head.status_code, head.content) == (get.status_code, b"")
        for name in ("Content-Type", "Content-Length", "Content-Disposition", "ETag"):
            assert head.headers.get(name) == get.headers.get(name)


def test_a_batch_is_canceled_and_retried(service: Service) -> None:
    batch_id = taken(post(service, b"\n".join(LINE + b"%d" % n for n in range(3000))))["id"]
    retry = f"{service.url}/batches/{batch_id}/retry"
    refused(requests.post(retry, timeout=10), 409, "batch_running")
    canceled = cancel(service, batch_id)
    assert canceled.status_code == 200
    wait_until(lambda: batch(service, batch_id)["status"] == "canceled")
    shown = batch(service, batch_id)
    assert shown["counts"]["canceled"] == 3000
    assert shown["finished_at"]
    refused(cancel(service, batch_id), 409, "batch_finished")
    again = requests.post(retry, timeout=10)
    assert again.status_code == 202
    assert again.headers["Location"] == f"/batches/{batch_id}"
    assert again.json()["status"] == "running"
    assert batch(service, batch_id)["counts"]["waiting"] == 3000
    refused(requests.post(retry, timeout=10), 409, "batch_running")


# --- manifests ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(service: Service) -> str:
    """A batch of 2,500 lines, canceled."""
    body = b"\n".join(LINE + b"%d" % n for n in range(2500))
    batch_id: str = taken(post(service, body, name="../Äther  & co.", format="urls"))["id"]
    cancel(service, batch_id)
    wait_until(lambda: batch(service, batch_id)["status"] == "canceled")
    return batch_id


FORMS = {
    "ndjson": ("application/x-ndjson", "ndjson"),
    "csv": ("text/csv; charset=utf-8; header=present", "csv"),
    "md5sum": ("text/plain; charset=utf-8", "md5"),
    "sha1sum": ("text/plain; charset=utf-8", "sha1"),
    "sha256sum": ("text/plain; charset=utf-8", "sha256"),
    "sha512sum": ("text/plain; charset=utf-8", "sha512"),
    "bsd": ("text/plain; charset=utf-8", "txt"),
    "gcs": ("text/tab-separated-values; charset=utf-8", "tsv"),
    "pooch": ("text/plain; charset=utf-8", "txt"),
    "failed": ("text/plain; charset=utf-8", "txt"),
}


@pytest.mark.parametrize("format", FORMS)
def test_every_form_is_sent(service: Service, ended: str, format: str) -> None:
    answer = manifest(service, ended, format=format, partial="yes")
    media_type, extension = FORMS[format]
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == media_type
    assert answer.headers["Content-Disposition"] == f'attachment; filename="ther-co.{extension}"'
    assert int(answer.headers["Content-Length"]) == len(answer.content) > 0


def test_a_batch_without_a_name_calls_its_file_by_the_id(service: Service) -> None:
    batch_id = taken(post(service, LINE, name="///"))["id"]
    found = manifest(service, batch_id).headers["Content-Disposition"]
    assert found == f'attachment; filename="{batch_id}.ndjson"'


def test_lines_come_in_input_order_and_in_parts(service: Service, ended: str) -> None:
    assert [entry["position"] for entry in entries(service, ended)] == list(range(1, 2501))
    for after, limit, wanted in (
        (0, 1, [1]),
        (999, 2, [1000, 1001]),
        (500, 1500, list(range(501, 2001))),
        (2499, 100, [2500]),
        (2500, 100, []),
        (10**14, 1, []),
    ):
        found = entries(service, ended, after=after, limit=limit)
        assert [entry["position"] for entry in found] == wanted
    assert manifest(service, ended, after=2500).headers["Content-Length"] == "0"


def test_lines_of_a_status(service: Service, ended: str) -> None:
    assert len(entries(service, ended, status="canceled")) == 2500
    assert entries(service, ended, status="failed") == []
    assert len(entries(service, ended, status="failed,canceled", after=10, limit=1200)) == 1200


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"format": "xml"}, 400, "unknown_format"),
        ({"names": "nick"}, 400, "unknown_names"),
        ({"status": "done"}, 400, "invalid_status"),
        ({"after": "-1"}, 400, "invalid_after"),
        ({"after": "1.5"}, 400, "invalid_after"),
        ({"after": "1" * 16}, 400, "invalid_after"),
        ({"limit": "0"}, 400, "invalid_limit"),
        ({"limit": "٣"}, 400, "invalid_limit"),
        ({"partial": "1"}, 400, "invalid_partial"),
        ({"fromat": "csv"}, 400, "unknown_parameter"),
        ({"limit": ["1", "2"]}, 400, "repeated_parameter"),
        ({"format": "gcs"}, 409, "not_all_done"),
    ],
)
def test_options_of_a_manifest_are_checked(
    service: Service, ended: str, query: dict[str, Any], status: int, code: str
) -> None:
    answer = manifest(service, ended, **query)
    refused(answer, status, code)
    assert answer.headers["Content-Type"] == "application/json"


def test_one_name_for_two_urls_is_ambiguous(service: Service) -> None:
    batch_id = taken(post(service, LINE + b"?1\n" + LINE + b"?2\n" + LINE + b"?1"))["id"]
    answer = manifest(service, batch_id, format="md5sum", names="basename")
    refused(answer, 409, "ambiguous_names")
    assert manifest(service, batch_id, format="md5sum", names="path").status_code == 200


def test_an_ended_batch_has_an_etag(service: Service, ended: str) -> None:
    first = manifest(service, ended, format="csv")
    etag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    url = f"{service.url}/batches/{ended}/manifest?format=csv"
    for known in (etag, f"W/{etag}", f'"a", {etag}', "*"):
        answer = requests.get(url, headers={"If-None-Match": known}, timeout=10)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["ETag"] == etag
    other = requests.get(url, headers={"If-None-Match": '"a"'}, timeout=10)
    assert (other.status_code, other.content) == (200, first.content)
    tags = {
        manifest(service, ended, **query).headers["ETag"]
        for query in ({}, {"format": "csv"}, {"format": "csv", "limit": 5}, {"status": "canceled"})
    }
    assert len(tags) == 4


def test_a_running_batch_has_none(service: Service) -> None:
    batch_id = taken(post(service, LINE))["id"]
    answer = manifest(service, batch_id)
    assert "ETag" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_retry_changes_the_etag(service: Service) -> None:
    batch_id = taken(post(service, LINE))["id"]
    tags = []
    for _ in range(2):
        cancel(service, batch_id)
        wait_until(lambda: batch(service, batch_id)["status"] == "canceled")
        tags.append(manifest(service, batch_id).headers["ETag"])
        requests.post(f"{service.url}/batches/{batch_id}/retry", timeout=10)
    assert tags[0] != tags[1]


def test_clients_that_go_leave_no_files(service: Service, ended: str) -> None:
    pid = service.commands[0].process.pid
    with connect(service) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /batches/%s/manifest HTTP/1.1\r\nHost: x\r\n\r\n" % ended.encode())
        assert client.recv(10) == b"HTTP/1.1 2"
    wait_until(lambda: not temporary_files(pid))


# --- worked through -------------------------------------------------------------------------------


def wait_for_end(service: Service, batch_id: str) -> dict[str, Any]:
    wait_until(lambda: batch(service, batch_id)["finished_at"])
    return batch(service, batch_id)


@pytest.mark.slow
def test_a_list_becomes_a_manifest_and_a_mail(tmp_path: Path, origin: Origin) -> None:
    with Postbox() as postbox, running(tmp_path, smtp=smtp(postbox)) as service:
        good = origin.serve("/good", b"alpha\n")
        lines = [
            good,
            f"{good} 6 9f9f90dbe3e5ee1218c86b8839db1995",
            f"{good} 7",
            origin.url("/missing"),
        ]
        form = {"email": "ann@localhost", "digests": "sha256", "name": "mine"}
        batch_id = taken(multipart(service, "\n".join(lines).encode(), **form))["id"]
        ended = wait_for_end(service, batch_id)
        counts = {status: count for status, count in ended["counts"].items() if count}
        assert counts == {"total": 4, "hashed": 1, "matched": 1, "mismatched": 1, "failed": 1}
        assert (ended["status"], ended["bytes"]) == ("done", 6)
        assert ended["errors"] == [{"code": "http_status", "count": 1, "lines": [4]}]
        first, *_ = entries(service, batch_id)
        assert first["sha256"] == hashlib.sha256(b"alpha\n").hexdigest()
        assert manifest(service, batch_id, format="md5sum", status="hashed").text == (
            f"9f9f90dbe3e5ee1218c86b8839db1995  {good}\n"
        )
        assert origin.requests("/good") == 1
        wait_until(lambda: batch(service, batch_id)["mail"] == "sent")
        (mail,) = postbox.mails
        assert mail.recipients == ["ann@localhost"]
        assert mail.message["Subject"] == "md5light: done: mine: 2 of 4 lines are well"
        assert len(list(mail.message.iter_attachments())) == 2

        origin.serve("/missing", b"found")
        retried = requests.post(f"{service.url}/batches/{batch_id}/retry", timeout=10)
        assert retried.status_code == 202
        assert wait_for_end(service, batch_id)["counts"]["failed"] == 0
        wait_until(lambda: len(postbox.mails) == 2)
        ids = {mail.message["Message-ID"] for mail in postbox.mails}
        assert len(ids) == 2
        refused(
            requests.post(f"{service.url}/batches/{batch_id}/retry", timeout=10),
            409,
            "nothing_to_retry",
        )
        log = "".join(command.lines for command in service.commands)
        for event in ("submitted", "batch_ended", "mailed", "retried"):
            assert re.search(rf"event={event} batch={batch_id}\b", log), event


def smtp(postbox: Postbox) -> dict[str, object]:
    return {"host": postbox.host, "port": postbox.port, "local_domains": "yes"}
