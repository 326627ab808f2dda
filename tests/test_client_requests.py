"""What the client asks, and what it makes of the answers of servers of every kind."""

from __future__ import annotations

import base64
import io
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from md5light.client.body import Body
from md5light.client.service import Service
from md5light.errors import Md5lightError
from md5light.exits import code_of
from md5light.lists.entry import Entry
from tests.client import (
    ACCEPTED,
    BATCH,
    as_json,
    as_manifest,
    batch,
    error,
    in_turn,
    ndjson,
    run,
    serve,
)
from tests.origin import Origin, Peer, Raw, Script, reply

URL = "https://files.example.org/a"
PAGE = reply(b"<html>Welcome</html>", "200 OK", "Content-Type: text/html")


def form(peer: Peer) -> dict[str, str]:
    """Return the fields of a form as it came."""
    parts = re.findall(
        r'name="(\w+)"[^\n]*\r\n(?:Content-Type: [^\n]*\r\n)?\r\n(.*?)\r\n--',
        peer.body.decode(),
        re.DOTALL,
    )
    return dict(parts)


def outcome(call: Callable[[], object]) -> tuple[int, str]:
    """Return the exit code and the message that a call ends with."""
    try:
        call()
    except Md5lightError as error:
        return code_of(error), error.message
    return 0, ""


def submission(origin: Origin, **options: Any) -> Callable[[], str]:
    body = Body({}, io.BytesIO(f"{URL}\n".encode()))
    service = Service(origin.url(), **options)
    return lambda: service.submit(body, body.content_type, "a key")


class Recorder:
    """Takes batches, and keeps the requests."""

    def __init__(self, *answers: Raw) -> None:
        self.peers: list[Peer] = []
        self._answers = answers or (as_json(ACCEPTED, "202 Accepted"),)

    def __call__(self, peer: Peer) -> bool:
        self.peers.append(peer)
        peer.send(self._answers[min(peer.number, len(self._answers)) - 1])
        return True


# --- what is sent ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_submit_prints_the_id_alone(origin: Origin, tmp_path: Path) -> None:
    done = run("submit", URL, server=serve(origin), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{BATCH}\n", "")
    assert origin.requests() == 1


@pytest.mark.slow
def test_options_are_fields_in_front_of_the_list(origin: Origin, tmp_path: Path) -> None:
    origin.serve("/batches", recorder := Recorder())
    options = ["--format", "sums", "--base", "https://example.org/ü", "--name", "a label"]
    options += ["--digest", "sha256", "--digest", "sha512", "--mail", "you@example.org"]
    done = run(
        "submit", "-", *options, "--skip-invalid", server=origin.url(), cwd=tmp_path, stdin="x\n"
    )
    assert done.returncode == 0, done.stderr
    fields = form(recorder.peers[0])
    assert list(fields)[-1] == "list"
    assert fields == {
        "format": "sums",
        "base": "https://example.org/ü",
        "digests": "sha256,sha512",
        "name": "a label",
        "email": "you@example.org",
        "skip_invalid": "yes",
        "list": "x\n",
    }


@pytest.mark.slow
def test_the_digest_of_a_manifest_need_not_be_named(origin: Origin, tmp_path: Path) -> None:
    serve(origin, batch(hashed=1))
    origin.serve("/batches", recorder := Recorder())
    done = run("submit", URL, "-o", "SHA256SUMS", server=origin.url(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert form(recorder.peers[0])["digests"] == "sha256"
    assert "manifest?format=sha256sum " in origin.heads[-1]


@pytest.mark.slow
def test_a_path_of_the_server_comes_before_all_others(origin: Origin, tmp_path: Path) -> None:
    origin.serve("/md5/batches", Recorder())
    done = run("submit", URL, "--server", origin.url("/md5/"), server="", cwd=tmp_path)
    assert done.stdout == f"{BATCH}\n"


@pytest.mark.slow
def test_a_submission_asks_no_more_than_it_needs_over_one_connection(
    origin: Origin, tmp_path: Path
) -> None:
    turns: list[int] = []

    def noting(answer: Script) -> Script:
        def script(peer: Peer) -> object:
            turns.append(peer.turn)
            return answer(peer)

        return script

    states = in_turn(batch("running", waiting=1), batch(hashed=1))
    origin.serve("/batches", noting(in_turn(as_json(ACCEPTED, "202 Accepted"))))
    origin.serve(f"/batches/{BATCH}", noting(states))
    origin.serve(f"/batches/{BATCH}/manifest", noting(as_manifest(b"the manifest")))
    done = run("submit", URL, "--wait", server=origin.url(), cwd=tmp_path)
    assert (done.stdout, turns) == ("the manifest", [1, 2, 3, 4])


# --- a server that is away, or busy ---------------------------------------------------------------


@pytest.mark.slow
def test_no_server_exits_with_69_and_one_line(tmp_path: Path) -> None:
    with Origin() as origin:
        server = origin.url("")
    done = run("status", BATCH, server=server, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (69, "")
    problem = f"md5light: {server} can't be reached: Connection refused"
    assert done.stderr == f"{problem}; waiting for it\n{problem}\n"


@pytest.mark.parametrize(
    "lost",
    [
        lambda peer: peer.reset(),
        lambda peer: None,  # closed without an answer
        lambda peer: peer.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 90\r\n\r\n{"),
        lambda peer: peer.send(error("503 Service Unavailable", "queue_full", "Full.")),
        lambda peer: peer.send(reply(b"<html>", "502 Bad Gateway")),
        lambda peer: peer.send(reply(b"", "500 Internal Server Error")),
    ],
    ids=["reset", "closed", "cut", "503", "502", "500"],
)
def test_a_lost_answer_makes_no_second_batch(
    lost: Callable[[Peer], object], origin: Origin
) -> None:
    keys, lists = [], []

    def take(peer: Peer) -> bool:
        keys.append(peer.headers["idempotency-key"])
        lists.append(form(peer)["list"])
        if peer.number == 1:
            lost(peer)
            return False
        peer.send(as_json(ACCEPTED, "202 Accepted"))
        return True

    origin.serve("/batches", take)
    assert submission(origin)() == BATCH
    assert lists == [f"{URL}\n"] * 2
    assert len(set(keys)) == 1
    assert len(keys) == 2


@pytest.mark.slow
def test_two_submissions_have_two_keys(origin: Origin, tmp_path: Path) -> None:
    origin.serve("/batches", recorder := Recorder())
    for _ in range(2):
        run("submit", URL, server=origin.url(), cwd=tmp_path)
    first, second = (peer.headers["idempotency-key"] for peer in recorder.peers)
    assert first != second


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
@pytest.mark.slow
def test_retry_after_is_honoured(status: str, origin: Origin) -> None:
    asked: list[float] = []
    busy = error(status, "queue_full", "Too many jobs are waiting.", "Retry-After: 1")
    notices: list[str] = []

    def take(peer: Peer) -> bool:
        asked.append(time.monotonic())
        peer.send(busy if peer.number == 1 else as_json(ACCEPTED, "202 Accepted"))
        return True

    origin.serve("/batches", take)
    assert submission(origin, notice=notices.append)() == BATCH
    assert "Too many jobs are waiting." in notices[0]
    assert notices[1:] == [f"{origin.url('')} answers again"]
    assert asked[1] - asked[0] >= 1


@pytest.mark.slow
def test_a_server_that_stays_busy_is_given_up(origin: Origin) -> None:
    origin.serve("/batches", error("503 Service Unavailable", "queue_full", "Full."))
    assert outcome(submission(origin)) == (69, f"{origin.url('')}: Full.")
    assert origin.requests() > 2


def test_timeout_ends_the_waiting_for_a_busy_server(origin: Origin) -> None:
    busy = error("503 Service Unavailable", "queue_full", "Full.", "Retry-After: 60")
    origin.serve("/batches", busy)
    assert outcome(submission(origin, deadline=time.monotonic() + 0.3))[0] == 75


# --- a server that says no, or is another ---------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (error("400 Bad Request", "empty_list", "The list has no lines."), 2, "has no lines"),
        (error("413 Too Large", "too_many_lines", "More than 5 lines."), 2, "More than 5 lines"),
        (error("415 No", "unsupported_media_type", "Send a form."), 2, "Send a form."),
        (error("422 No", "idempotency_key_reused", "Another body."), 2, "Another body."),
        (error("401 Unauthorized", "unauthorized", "A token is needed."), 1, "token is needed"),
        (error("403 Forbidden", "cross_site", "No."), 1, "No."),
        (error("404 Not Found", "not_found", "Nothing here."), 1, "Nothing here."),
        (PAGE, 69, "is not md5light"),
        (reply(b"nothing", "404 Not Found", "Content-Type: text/html"), 69, "is not md5light"),
        (as_json({"detail": "Not Found"}, "404 Not Found"), 69, "is not md5light"),
        (as_json([1], "202 Accepted"), 69, "is not md5light"),
        (as_json({"job": 1}, "202 Accepted"), 69, "is not md5light"),
        (as_json({"error": "no"}, "400 Bad Request"), 69, "is not md5light"),
        (reply(b"\xff\x00", "202 Accepted"), 69, "is not md5light"),
        (reply(b"[" * 100_000, "202 Accepted"), 69, "is not md5light"),
        (reply(b"", "301 Moved", "Location: http://127.0.0.2:1/"), 69, "redirects to http://127."),
    ],
)
def test_an_answer_to_a_submission_becomes_an_exit_code_and_a_sentence(
    answer: Raw, code: int, message: str, origin: Origin
) -> None:
    origin.serve("/batches", answer)
    ended_with, said = outcome(submission(origin))
    assert ended_with == code
    assert message in said


@pytest.mark.slow
def test_bad_lines_are_named(origin: Origin, tmp_path: Path) -> None:
    lines = [{"line": 3, "code": "invalid_url", "message": "The URL must be \x1b[1mabsolute."}]
    answer = error("400 Bad Request", "invalid_lines", "2 lines are bad.", lines=lines)
    origin.serve("/batches", answer)
    done = run("submit", URL, server=origin.url(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "md5light: 2 lines are bad.",
        r"md5light: line 3: The URL must be \x1b[1mabsolute. (invalid_url)",
    ]


@pytest.mark.parametrize("verb", ["batch", "manifest", "retry", "cancel"])
@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (as_json({"status": "not found"}, "404 Not Found"), 1, f"there is no batch {BATCH}"),
        (PAGE, 69, "is not md5light"),
        (reply(b"no", "404 Not Found"), 69, "is not md5light"),
        (error("409 Conflict", "batch_finished", "It has ended."), 1, "It has ended."),
    ],
)
def test_an_answer_about_a_batch_becomes_an_exit_code_and_a_sentence(
    verb: str, answer: Raw, code: int, message: str, origin: Origin
) -> None:
    for path in ("", "/manifest", "/retry"):
        origin.serve(f"/batches/{BATCH}{path}", answer)
    into = [io.BytesIO()] if verb == "manifest" else []
    call = getattr(Service(origin.url()), verb)
    ended_with, said = outcome(lambda: call(BATCH, *into))
    assert ended_with == code
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "described",
    [
        {},
        {"id": BATCH, "status": "done"},
        {"id": BATCH, "status": "done", "counts": [1]},
        {"id": BATCH, "status": "done", "counts": {"total": 1}},
        {"id": BATCH, "status": "done", "counts": {"total": "x"}},
        {"md5": "f4afe93ad799484b1d512cc20e93efd1", "status": "done", "url": URL},
    ],
)
def test_json_of_another_form_is_not_md5light(described: dict[str, object], origin: Origin) -> None:
    origin.serve(f"/batches/{BATCH}", as_json(described))
    code, said = outcome(lambda: Service(origin.url()).batch(BATCH))
    assert code == 69
    assert "is not md5light" in said


@pytest.mark.parametrize("form", ["ndjson", "md5sum", "gcs"])
@pytest.mark.parametrize(
    "answer",
    [as_json({"a": 1}), PAGE, reply(b""), reply(b"x", "200 OK", "Content-Type: image/png")],
    ids=["json", "html", "empty", "image"],
)
def test_what_is_no_manifest_is_not_md5light(answer: Raw, form: str, origin: Origin) -> None:
    origin.serve(f"/batches/{BATCH}/manifest", answer)
    ask = Service(origin.url()).manifest
    code, said = outcome(lambda: ask(BATCH, io.BytesIO(), format=form))
    assert (code, "is not md5light" in said) == (69, True)


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"\x15\x03\x01\x00\x02\x02\x46"])
def test_what_does_not_speak_http_is_not_waited_for(answer: bytes, origin: Origin) -> None:
    origin.serve(f"/batches/{BATCH}", lambda peer: peer.send(answer))
    code, said = outcome(lambda: Service(origin.url()).batch(BATCH, patiently=True))
    assert (code, said) == (69, f"{origin.url('')} does not speak HTTP")


@pytest.mark.parametrize("batch_id", ["x y", "../jobs", "a/b", "", "é", "\x1b[1m", "x" * 65])
def test_what_is_no_id_is_no_batch(batch_id: str, origin: Origin) -> None:
    code, said = outcome(lambda: Service(origin.url()).batch(batch_id))
    assert code == 1
    assert said.startswith("there is no batch ")
    assert said.isprintable()
    assert origin.requests() == 0


@pytest.mark.parametrize(
    "server",
    [
        "127.0.0.1",
        "ftp://127.0.0.1",
        "http://",
        "http://h:x",
        "http://h/?a=b",
        "http://[::1",
        "http://a b",
        "http://a..b",
        f"http://{'x' * 64}",
    ],
)
def test_a_server_that_is_no_url_is_refused(server: str) -> None:
    message = "the server must be an http or https URL, see --server"
    assert outcome(lambda: Service(server)) == (2, message)


# --- a repeat of what was done already ------------------------------------------------------------


def conflict(after: Callable[[Peer], object] | None, code: str) -> Callable[[Peer], bool]:
    """Answer 409, but the first request as `after` does."""

    def answer(peer: Peer) -> bool:
        if after and peer.number == 1:
            after(peer)
            return False
        peer.send(error("409 Conflict", code, "It can't be done."))
        return True

    return answer


LOST: list[Callable[[Peer], object]] = [
    lambda peer: peer.reset(),
    lambda peer: None,
    lambda peer: peer.send(reply(b"", "504 Gateway Timeout")),
]


@pytest.mark.parametrize("lost", LOST, ids=["reset", "closed", "504"])
@pytest.mark.parametrize("code", ["batch_running", "nothing_to_retry"])
def test_a_retry_whose_answer_was_lost_is_done(
    code: str, lost: Callable[[Peer], object], origin: Origin
) -> None:
    origin.serve(f"/batches/{BATCH}/retry", conflict(lost, code))
    Service(origin.url()).retry(BATCH)


@pytest.mark.parametrize("lost", LOST, ids=["reset", "closed", "504"])
@pytest.mark.parametrize(("status", "code"), [("canceled", 0), ("done", 1)])
def test_a_cancel_whose_answer_was_lost_is_done_unless_the_batch_ended_before(
    status: str, code: int, lost: Callable[[Peer], object], origin: Origin
) -> None:
    refuse = conflict(lost, "batch_finished")

    def answer(peer: Peer) -> bool:
        if peer.head.startswith("DELETE"):
            return refuse(peer)
        peer.send(batch(status, hashed=1, canceled=1))
        return True

    origin.serve(f"/batches/{BATCH}", answer)
    assert outcome(lambda: Service(origin.url()).cancel(BATCH))[0] == code


@pytest.mark.parametrize("verb", ["retry", "cancel"])
def test_a_conflict_at_the_first_request_is_none_of_ours(verb: str, origin: Origin) -> None:
    for path in ("", "/retry"):
        origin.serve(f"/batches/{BATCH}{path}", conflict(None, "batch_finished"))
    code, said = outcome(lambda: getattr(Service(origin.url()), verb)(BATCH))
    assert (code, said) == (1, f"{origin.url('')}: It can't be done.")


# --- passwords, proxies, TLS ----------------------------------------------------------------------


def authorization(origin: Origin) -> list[str]:
    """Return the names and passwords that came, one for each request that had some."""
    found = re.findall(r"\r\nAuthorization: Basic (\S+)", "\r\n".join(origin.heads))
    return [base64.b64decode(each).decode() for each in found]


@pytest.mark.slow
def test_a_password_in_the_url_is_sent_and_never_printed(origin: Origin, tmp_path: Path) -> None:
    server = origin.url("").replace("//", "//ann:s%C3%A9cret%40@")
    origin.serve(f"/batches/{BATCH}", batch(hashed=1))
    done = run("status", BATCH, "-v", server=server, cwd=tmp_path)
    assert authorization(origin) == ["ann:sécret@"]
    origin.serve(f"/batches/{BATCH}", PAGE)
    failed = run("status", BATCH, "-v", server=server, cwd=tmp_path)
    assert failed.returncode == 69
    for text in (done.stdout, done.stderr, failed.stdout, failed.stderr):
        assert "cret" not in text


@pytest.mark.slow
def test_netrc_is_for_its_server_alone(origin: Origin, tmp_path: Path) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    netrc.chmod(0o600)
    origin.serve(f"/batches/{BATCH}", batch(hashed=1))
    run("status", BATCH, server=origin.url(), cwd=tmp_path)
    assert authorization(origin) == ["ann:secret"]
    run("status", BATCH, server=origin.url(host="localhost"), cwd=tmp_path)
    assert authorization(origin) == ["ann:secret"]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_a_redirect_takes_nothing_elsewhere(
    status: str, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = "machine 127.0.0.1 login ann password secret\nmachine localhost login b password c\n"
    (tmp_path / "netrc").write_text(netrc)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Origin() as other:
        elsewhere = other.url("/batches", host="localhost")
        origin.serve("/batches", reply(b"", status, f"Location: {elsewhere}"))
        code, said = outcome(submission(origin))
        assert code == 69
        assert f"redirects to {elsewhere}" in said
        assert other.requests() == 0


def test_the_environment_names_a_proxy(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    server = "http://md5light.example.org"
    origin.serve(f"{server}/batches/{BATCH}", batch(hashed=1))
    monkeypatch.setenv("http_proxy", origin.url(""))
    assert Service(server).batch(BATCH).counts["hashed"] == 1


def test_a_proxy_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with Origin() as origin:
        monkeypatch.setenv("http_proxy", origin.url(""))
    notices: list[str] = []
    service = Service(
        "http://md5light.example.org", deadline=time.monotonic() + 0.1, notice=notices.append
    )
    assert outcome(lambda: service.batch(BATCH))[0] == 75
    assert "through the proxy: Connection refused" in notices[0]


def test_a_certificate_is_verified_and_cafile_trusted(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Origin(tls=context) as origin:
        origin.serve(f"/batches/{BATCH}", batch(hashed=1))
        code, said = outcome(lambda: Service(origin.url()).batch(BATCH))
        assert (code, "not trusted" in said, "--cafile" in said) == (69, True, True)
        service = Service(origin.url(), str(tmp_path / "ca.pem"))
        assert service.batch(BATCH).counts["hashed"] == 1


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_wrong_cafile_is_refused(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    code, said = outcome(lambda: Service("https://127.0.0.1:1", str(path)))
    assert code == 2
    assert said.startswith(f"--cafile {path}: ")


# --- the manifest ---------------------------------------------------------------------------------


def test_a_manifest_that_breaks_off_is_fetched_again(origin: Origin) -> None:
    whole = ndjson(Entry(1, URL, URL, "hashed", size=1, digests={"md5": "0" * 32}))
    path = f"/batches/{BATCH}/manifest"

    def send(peer: Peer) -> bool:
        return peer.reply(whole, length=len(whole) + (peer.number == 1)) and peer.number > 1

    origin.serve(path, send)
    Service(origin.url()).manifest(BATCH, into := io.BytesIO())
    assert into.getvalue() == whole
    assert origin.requests(path) == 2


@pytest.mark.slow
def test_a_file_is_replaced_as_a_whole_or_not_at_all(origin: Origin, tmp_path: Path) -> None:
    target, other = tmp_path / "out", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    other.symlink_to("out")
    serve(origin, manifest=b"new")
    path = f"/batches/{BATCH}/manifest"
    ambiguous = error("409 Conflict", "ambiguous_names", "Two lines have one name.")
    origin.serve(path, in_turn(ambiguous, reply(b"new")))
    failed = run("manifest", BATCH, "-o", "link", server=origin.url(), cwd=tmp_path)
    assert (failed.returncode, target.read_text()) == (1, "old")
    assert "Two lines have one name." in failed.stderr
    done = run("manifest", BATCH, "-o", "link", server=origin.url(), cwd=tmp_path)
    assert (done.returncode, target.read_text(), done.stdout) == (0, "new", "")
    assert (target.stat().st_mode & 0o777, other.is_symlink()) == (0o640, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "why"), [("/dev/full", "No space left on device"), ("/proc/x", "No such file or")]
)
def test_a_target_that_fails_at_last_is_named(
    target: str, why: str, origin: Origin, tmp_path: Path
) -> None:
    server = serve(origin, manifest=b"new")
    done = run("manifest", BATCH, "-o", target, server=server, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"md5light: {target}: {why}")


@pytest.mark.slow
def test_a_new_file_has_the_usual_permissions(origin: Origin, tmp_path: Path) -> None:
    serve(origin, manifest=b"new")
    run("manifest", BATCH, "-o", "out", server=origin.url(), cwd=tmp_path)
    (tmp_path / "usual").touch()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.slow
@pytest.mark.parametrize("target", ["none/out", ".", "none/"])
def test_a_target_that_can_not_be_written_is_told_before_the_waiting(
    target: str, origin: Origin, tmp_path: Path
) -> None:
    done = run("submit", URL, "-o", target, server=serve(origin), cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert re.fullmatch(r"md5light: .*: (No such file or|Is a) directory\n", done.stderr)
    assert origin.requests() == 0
