"""Further digests and expected values, from the submission to all places that show the result."""

from __future__ import annotations

import base64
import email
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.command import run
from tests.origin import Origin, Raw, reply
from tests.service import Service, running
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

BODY = b"the body of a file\n" * 1000
WRONG = "0" * 64


def digest(name: str, body: bytes = BODY) -> str:
    return hashlib.new(name, body).hexdigest()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        origin.serve("/file", BODY)
        page = reply(b"<p>Log in", "200 OK", "Content-Type: text/html; charset=utf-8")
        origin.serve("/page", Raw(page))
        origin.serve("/moved", reply(b"", "302 Found", "Location: /page"))
        yield origin


def submit_form(service: Service, **fields: str) -> str:
    """Submit as `curl -F` does; return the answer."""
    arguments = [part for name, value in fields.items() for part in ("-F", f"{name}={value}")]
    command = ["curl", "-sS", *arguments, f"{service.url}/submit"]
    return subprocess.check_output(command, text=True, timeout=20)


def submit_json(service: Service, **fields: object) -> requests.Response:
    return requests.post(f"{service.url}/submit", json=fields, timeout=10)


def done(service: Service, **fields: object) -> tuple[str, dict[str, Any]]:
    """Submit as JSON; return the text of /check and the object of /jobs once the job is done."""
    job_id = submit_json(service, **fields).json()["id"]
    assert service.result(job_id)["status"] == "done"
    return service.check(job_id).text, service.job(job_id)


def written(value: Mapping[str, object]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"


@pytest.mark.parametrize(
    ("digests", "names"),
    [
        ("sha256", ["sha256"]),
        ("sha1 sha512", ["sha1", "sha512"]),
        ("sha512,sha1, sha256", ["sha1", "sha256", "sha512"]),
        ("SHA-256 md5 sha256", ["sha256"]),
        ("md5", []),
        (" , ", []),
        ("", []),
    ],
)
def test_further_digests_come_with_the_md5(
    service: Service, origin: Origin, digests: str, names: list[str]
) -> None:
    url = origin.url("/file")
    job_id = json.loads(submit_form(service, url=url, digests=digests))["id"]
    service.result(job_id)
    result = {name: digest(name) for name in ("md5", *names)}
    assert service.check(job_id).text == written({**result, "status": "done", "url": url})
    job = service.job(job_id)
    assert {name: job[name] for name in job if re.match(r"md5|sha", name)} == result
    assert not {"check", "expected", "note"} & set(job)


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256", "sha512"])
@pytest.mark.parametrize("spelling", ["hex", "upper", "base64", "prefix", "sri"])
@pytest.mark.parametrize("is_right", [True, False])
def test_an_expected_digest_is_computed_and_judged(
    service: Service, origin: Origin, name: str, spelling: str, is_right: bool
) -> None:
    wanted = digest(name, BODY if is_right else b"another")
    in_base64 = base64.b64encode(bytes.fromhex(wanted)).decode()
    sent = {
        "hex": wanted,
        "upper": wanted.upper(),
        "base64": in_base64,
        "prefix": f"{name}:{wanted}",
        "sri": f"{name}-{in_base64}",
    }[spelling]
    url = origin.url("/file")
    text, job = done(service, url=url, **{name: sent})
    result = {
        "check": "matched" if is_right else "mismatched",
        "expected": {name: wanted},
        "md5": digest("md5"),
        name: digest(name),
        "status": "done",
        "url": url,
    }
    assert text == written(result)
    assert (job["check"], job["expected"]) == (result["check"], result["expected"])
    note = f"The file is not as expected: {name} is {digest(name)}, not {wanted}."
    assert job["note"] == (None if is_right else note)
    assert job["attempts"] == 1


@pytest.mark.parametrize("size", [len(BODY), str(len(BODY)), f"00{len(BODY)}"])
def test_an_expected_size_is_judged(service: Service, origin: Origin, size: object) -> None:
    url = origin.url("/file")
    text, _ = done(service, url=url, size=size)
    expected = {"size": len(BODY)}
    result = {"check": "matched", "expected": expected, "md5": digest("md5"), "status": "done"}
    assert text == written({**result, "url": url})


def test_a_file_that_differs_in_all_is_told_in_all(service: Service, origin: Origin) -> None:
    _, job = done(
        service, url=origin.url("/moved"), size=len(BODY), sha256=digest("sha256"), digests="sha1"
    )
    got = b"<p>Log in"
    assert job["note"] == (
        f"The file is not as expected: size is 9, not {len(BODY)}; "
        f"sha256 is {digest('sha256', got)}, not {digest('sha256')}; "
        "it looks like a page: its type is text/html; charset=utf-8."
    )
    assert (job["status"], job["check"], job["attempts"]) == ("done", "mismatched", 1)
    assert (job["size"], job["sha256"], job["sha1"]) == (
        9,
        digest("sha256", got),
        digest("sha1", got),
    )
    assert job["expected"] == {"size": len(BODY), "sha256": digest("sha256")}
    assert job["content_type"].startswith("text/html")
    assert job["final_url"] == origin.url("/page")


def test_one_wrong_value_of_many_is_a_mismatch(service: Service, origin: Origin) -> None:
    right = {"md5": digest("md5"), "sha512": digest("sha512"), "size": len(BODY)}
    _, job = done(service, url=origin.url("/file"), **right)
    assert (job["check"], job["note"]) == ("matched", None)
    _, job = done(service, url=origin.url("/file"), **right, sha256=WRONG)
    assert job["check"] == "mismatched"
    assert "md5" not in job["note"]


def test_a_page_that_was_expected_is_not_remarked_upon(service: Service, origin: Origin) -> None:
    _, job = done(service, url=origin.url("/page"), size=9)
    assert (job["check"], job["note"]) == ("matched", None)


@pytest.mark.parametrize("nothing", ["", "-", "none", None])
def test_where_nothing_is_expected_nothing_is_told(
    service: Service, origin: Origin, nothing: str | None
) -> None:
    names = ("md5", "sha1", "sha256", "sha512", "size")
    url = origin.url("/file")
    text, job = done(service, url=url, digests=nothing and "", **dict.fromkeys(names, nothing))
    assert text == f'{{"md5":"{digest("md5")}","status":"done","url":"{url}"}}\n'
    assert len(job) == 19


def test_what_is_wanted_stays_as_it_is_while_a_job_waits_and_when_it_fails(
    service: Service, origin: Origin
) -> None:
    gate = origin.gate()
    origin.serve("/waiting", lambda peer: gate.wait(30) and peer.reply(b"", "404 None"))
    fields: dict[str, object] = {"digests": "sha1", "sha256": WRONG}
    job_id = submit_json(service, url=origin.url("/waiting"), **fields).json()["id"]
    wait_until(lambda: service.job(job_id)["status"] == "running")
    unknown = {"sha1": None, "sha256": None, "check": None, "note": None}
    assert unknown.items() <= service.job(job_id).items()
    gate.set()
    assert list(service.result(job_id)) == ["error", "status", "url"]
    assert unknown.items() <= service.job(job_id).items()
    assert service.job(job_id)["expected"] == {"sha256": WRONG}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"digests": "sha3"}, "invalid_digests"),
        ({"digests": "sha256|sha1"}, "invalid_digests"),
        ({"digests": "sha256 \x1b"}, "invalid_digests"),
        ({"digests": 256}, "invalid_digests"),
        ({"digests": ["sha256"]}, "invalid_digests"),
        ({"md5": "0" * 31}, "invalid_digest"),
        ({"md5": "g" * 32}, "invalid_digest"),
        ({"md5": "0" * 40}, "invalid_digest"),
        ({"sha1": f"md5:{'0' * 32}"}, "invalid_digest"),
        ({"sha256": "0" * 40}, "invalid_digest"),
        ({"sha512": "sha512:"}, "invalid_digest"),
        ({"sha512": 5}, "invalid_digest"),
        ({"size": "-1"}, "invalid_size"),
        ({"size": -1}, "invalid_size"),
        ({"size": "1e3"}, "invalid_size"),
        ({"size": "1,000"}, "invalid_size"),
        ({"size": 2**63}, "invalid_size"),
        ({"size": 1.5}, "invalid_size"),
        ({"size": True}, "invalid_size"),
        ({"sha3": WRONG}, "unknown_parameter"),
        ({"digest": "sha1"}, "unknown_parameter"),
    ],
)
def test_what_can_not_be_expected_is_refused(
    service: Service, origin: Origin, fields: dict[str, object], code: str
) -> None:
    url = origin.url("/file")
    answers = [submit_json(service, url=url, **fields).json()]
    if all(isinstance(value, str) for value in fields.values()):
        answers.append(json.loads(submit_form(service, url=url, **fields)))  # type: ignore[arg-type]  # all are text
    for answer in answers:
        assert answer["error"]["code"] == code
        assert re.fullmatch(r"[A-Z`].*\.", answer["error"]["message"])
        assert next(iter(fields)) in answer["error"]["message"]


@pytest.mark.parametrize("name", ["digests", "md5", "sha1", "sha256", "sha512", "size"])
def test_a_value_that_is_given_twice_or_as_a_file_is_refused(
    service: Service, origin: Origin, name: str
) -> None:
    url = origin.url("/file")
    code = {"digests": "invalid_digests", "size": "invalid_size"}.get(name, "invalid_digest")
    submit = f"{service.url}/submit"
    twice = requests.post(submit, data=[("url", url), (name, ""), (name, "")], timeout=10)
    assert twice.json()["error"]["code"] == "repeated_parameter"
    file = requests.post(submit, data={"url": url}, files={name: ("name", b"1")}, timeout=10)
    assert file.json()["error"]["code"] == code


def test_a_plus_sign_of_base64_that_was_not_encoded_is_explained(
    service: Service, origin: Origin
) -> None:
    body = f"url={origin.url('/file')}&md5=%2B+AAAAAAAAAAAAAAAAAAAA=="
    answer = requests.post(
        f"{service.url}/submit",
        data=body,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        timeout=10,
    ).json()
    assert answer["error"]["code"] == "invalid_digest"
    assert "--data-urlencode" in answer["error"]["message"]


def test_a_form_may_separate_digests_by_spaces(service: Service, origin: Origin) -> None:
    job_id = service.submit(origin.url("/file"), digests="sha1 sha256")
    assert service.result(job_id)["sha256"] == digest("sha256")


def test_a_mail_and_the_command_line_tell_the_verdict(service: Service, origin: Origin) -> None:
    job_id = json.loads(
        submit_form(
            service, url=origin.url("/file"), email="ann@localhost", digests="sha1", sha256=WRONG
        )
    )["id"]
    wait_until(lambda: service.job(job_id)["mail"] == "sent")
    mails = [
        email.message_from_bytes(path.read_bytes())
        for path in Path(service.folder, "md5light-mail", "new").iterdir()
    ]
    [mail] = [mail for mail in mails if job_id in mail["Message-ID"]]
    text = mail.get_payload(decode=True).decode()  # type: ignore[union-attr]  # it has one part
    assert mail["Subject"] == "md5light: mismatched: file"
    note = f"sha256 is {digest('sha256')}, not {WRONG}."
    assert f"SHA-1:  {digest('sha1')}\nSHA-256: {digest('sha256')}\nSize: " in text
    assert f"Check:  mismatched. The file is not as expected: {note}\n" in text
    config = str(service.config)
    shown = run("md5light", "--config", config, "jobs", "show", job_id, cwd=service.folder).stdout
    assert re.search(rf"^sha1 +{digest('sha1')}$", shown, re.MULTILINE)
    assert re.search(r"^check +mismatched$", shown, re.MULTILINE)
    assert re.search(rf"^expected sha256 +{WRONG}$", shown, re.MULTILINE)
