"""Tokens: who may submit, by the file, over HTTP, and by the commands that change the file."""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import quote

import pytest
import requests
from playwright.sync_api import Browser, expect
from prometheus_client.parser import text_string_to_metric_families

from md5light import admin, config
from md5light.errors import ConfigError, NotDone, Refused
from md5light.web.answers import Problem
from md5light.web.tokens import MAX_ADDRESSES, MAX_FAILURES, TokenFile, Tokens, client_of, digest
from tests.command import run, start
from tests.conftest import Clock
from tests.service import Service
from tests.test_nginx import Nginx

URL = "http://files.example.com/a"
CHALLENGE = 'Basic realm="md5light"'
NAMES = ["ann", "Zoë", "Ольга", "a@b", "x" * 64, 'q"\\']


class Tokened:
    """A folder with a configuration that names a file of tokens, and commands run on it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "tokens"
        self.config = folder / "config.ini"

    def command(self, verb: str, name: str = "", *, json: bool = False) -> str:
        """Run a command in this process and return what it prints."""
        arguments = argparse.Namespace(name=name, json=json)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            getattr(admin, f"token_{verb}")(config.load(str(self.config), {}), arguments)
        return printed.getvalue()

    def add(self, name: str) -> str:
        return self.command("add", name).strip()

    def tokens(self, clock: Clock | None = None) -> Tokens:
        file = TokenFile(config.load(str(self.config), {}))
        return Tokens(file, clock) if clock else Tokens(file)


@pytest.fixture
def tokened(tmp_path: Path) -> Tokened:
    tokened = Tokened(tmp_path)
    tokened.config.write_text("[server]\ntokens_file = tokens\n")
    return tokened


def write(tokened: Tokened, **tokens: str) -> None:
    lines = [f"{name}:{digest(token.encode()).hex()}\n" for name, token in tokens.items()]
    tokened.file.write_text("".join(lines), encoding="utf-8")


def basic(user: bytes, password: bytes) -> str:
    return f"Basic {base64.b64encode(user + b':' + password).decode()}"


def environ_of(header: str | None, address: str = "192.0.2.1") -> dict[str, Any]:
    environ: dict[str, Any] = {"REMOTE_ADDR": address}
    return environ if header is None else {**environ, "HTTP_AUTHORIZATION": header}


def problem_of(tokens: Tokens, header: str | None, address: str = "192.0.2.1") -> Problem:
    environ = environ_of(header, address)
    with pytest.raises(Problem) as caught:
        tokens.check(environ)
    assert "REMOTE_USER" not in environ
    return caught.value


# --- what a request shows ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "Bearer secret",
        "bearer  secret ",
        basic(b"ann", b"secret"),
        basic(b"ann", b"secret").replace("Basic", "BASIC"),
    ],
)
def test_a_token_names_its_owner(tokened: Tokened, header: str) -> None:
    write(tokened, ann="secret", bob="other")
    environ = environ_of(header)
    tokened.tokens().check(environ)
    assert environ["REMOTE_USER"] == "ann"
    assert client_of(environ) == "token:ann"


@pytest.mark.parametrize(
    "user", ["Zoë".encode(), "Zoë".encode("latin-1"), "Zoe\u0308".encode()], ids=["8", "1", "nfd"]
)
def test_a_name_is_the_same_however_it_is_written(tokened: Tokened, user: bytes) -> None:
    write(tokened, Zoë="geheim:ß")
    environ = environ_of(basic(user, "geheim:ß".encode()))
    tokened.tokens().check(environ)
    assert environ["REMOTE_USER"] == "Zoë"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "secret",
        "Bearer",
        "Bearer Secret",
        "Bearer ann:secret",
        "Digest secret",
        "Basic",
        "Basic secret",
        "Basic %%%",
        basic(b"bob", b"secret"),
        basic(b"", b"secret"),
        basic(b"ann", b""),
        basic(b"ann", b"secret")[:-1],
        "Basic " + base64.b64encode(b"secret").decode(),
        basic(b"ann", b"secret").replace("Basic", "Bearer"),
        "Bearer secret, Bearer secret",
        "Bearer " + digest(b"secret").hex(),
    ],
)
def test_anything_else_is_refused_with_a_challenge(tokened: Tokened, header: str | None) -> None:
    write(tokened, ann="secret", bob="other")
    problem = problem_of(tokened.tokens(), header)
    assert (problem.status, problem.code) == (401, "unauthorized")
    assert problem.headers == {"WWW-Authenticate": CHALLENGE}
    assert "secret" not in problem.message


def test_a_file_without_tokens_lets_nobody_in(tokened: Tokened) -> None:
    tokened.file.write_text("# nobody yet\n\n")
    for header in ("Bearer ", "Bearer x", basic(b"", b"")):
        assert problem_of(tokened.tokens(), header).status == 401


def test_a_client_without_a_token_is_its_address() -> None:
    assert client_of({"REMOTE_ADDR": "192.0.2.1"}) == "192.0.2.1"
    assert client_of({"REMOTE_ADDR": "2001:db8:1:2:3::4"}) == "2001:db8:1:2::/64"


# --- wrong tokens --------------------------------------------------------------------------------


def test_an_address_with_many_wrong_tokens_waits_and_others_do_not(
    tokened: Tokened, clock: Clock
) -> None:
    write(tokened, ann="secret")
    tokens = tokened.tokens(clock)
    for _ in range(MAX_FAILURES):
        assert problem_of(tokens, "Bearer wrong", "2001:db8::1").status == 401
        clock.pass_(1)
    # The right token has to wait as well: else the answer would tell of each guess.
    for header in ("Bearer wrong", "Bearer secret"):
        problem = problem_of(tokens, header, "2001:db8::2")
        assert (problem.status, problem.code) == (429, "too_many_failures")
        assert problem.headers == {"Retry-After": "50"}
    assert problem_of(tokens, None, "2001:db8::1").status == 401
    tokens.check(environ_of("Bearer secret", "2001:db8:0:1::1"))
    clock.pass_(50)
    tokens.check(environ_of("Bearer secret", "2001:db8::1"))


def test_wrong_tokens_now_and_then_keep_nobody_out(tokened: Tokened, clock: Clock) -> None:
    write(tokened, ann="secret")
    tokens = tokened.tokens(clock)
    for _ in range(5 * MAX_FAILURES):
        assert problem_of(tokens, "Bearer wrong").status == 401
        clock.pass_(7)


def test_wrong_tokens_of_many_addresses_take_bounded_memory(tokened: Tokened, clock: Clock) -> None:
    write(tokened, ann="secret")
    tokens = tokened.tokens(clock)
    for number in range(MAX_ADDRESSES + 10):
        problem_of(tokens, "Bearer wrong", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(tokens._failures._times) == MAX_ADDRESSES


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"ann:{'0' * 63}\n", "line 1: is not NAME:SHA-256 of the token"),
        (f"# ann\n\nann {'0' * 64}", "line 3: is not NAME:SHA-256 of the token"),
        (f"ann:{'0' * 64}:x", "line 1: is not NAME:SHA-256 of the token"),
        (f"a b:{'0' * 64}", "line 1: is not NAME:SHA-256 of the token"),
        (f":{'0' * 64}", "line 1: is not NAME:SHA-256 of the token"),
        (f"{'x' * 65}:{'0' * 64}", "line 1: is not NAME:SHA-256 of the token"),
        (f"a\u200bb:{'0' * 64}", "line 1: is not NAME:SHA-256 of the token"),
        (f"Zoe\u0308:{'0' * 64}", "line 1: is not NAME:SHA-256 of the token"),
        (f"ann:{'0' * 64}\nann:{'1' * 64}", "line 2: the name is given twice"),
        (None, "can't be read: No such file or directory"),
        ("\udcff", "is not UTF-8 text"),
    ],
)
def test_a_wrong_file_is_said_in_one_line(tokened: Tokened, text: str | None, problem: str) -> None:
    if text is not None:
        tokened.file.write_bytes(text.encode(errors="surrogateescape"))
    line = f"{tokened.config}: [server] tokens_file = {tokened.file}: {problem}"
    with pytest.raises(ConfigError) as caught:
        tokened.tokens()
    assert str(caught.value) == line
    with pytest.raises(ConfigError, match=re.escape(line)):
        admin.config_check(config.load(str(tokened.config), {}), argparse.Namespace(config=None))


def test_blanks_comments_and_either_case_are_read(tokened: Tokened) -> None:
    written = f"\ufeff# who may submit\r\n\r\n  ann:{digest(b'secret').hex().upper()}  \r\n"
    tokened.file.write_bytes(written.encode())
    tokened.tokens().check(environ_of("Bearer secret"))


@pytest.mark.slow
def test_a_server_does_not_start_with_a_wrong_file(tmp_path: Path) -> None:
    with Service(tmp_path, server={"port": 0, "tokens_file": "tokens"}) as service:
        command = service.start("server")
        assert command.process.wait(20) == 78
        assert command.lines.splitlines()[-1].endswith("can't be read: No such file or directory")


# --- over HTTP -----------------------------------------------------------------------------------


class Guarded(Service):
    """A server with a file of tokens, one for each of NAMES."""

    def __init__(self, folder: Path, **server: object) -> None:
        super().__init__(folder, server={"port": 0, "tokens_file": "tokens", **server})
        self.tokened = Tokened(folder)
        self.secrets = {name: f"secret-{number}" for number, name in enumerate(NAMES)}
        write(self.tokened, **self.secrets)

    def __enter__(self) -> Guarded:
        return self


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    settings = {"trusted_proxy": "127.0.0.1", "submits_per_minute": 3}
    with Guarded(tmp_path_factory.mktemp("service"), **settings) as service:
        service.start_server()
        yield service


def ask(
    service: Service, method: str, path: str, header: str | None = None, **more: Any
) -> requests.Response:
    """Ask without what requests adds by itself; a name may be more than Latin-1."""
    headers = {**more.pop("headers", {}), **({"Authorization": header} if header else {})}
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, service.url + path, headers=headers, timeout=10, **more)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/submit", 202),
        ("DELETE", "/jobs/none", 404),
        ("POST", "/batches", 202),
        ("DELETE", "/batches/none", 404),
        ("POST", "/batches/none/retry", 404),
        ("GET", "/metrics", 200),
        ("HEAD", "/metrics", 200),
    ],
)
def test_what_changes_something_needs_a_token(
    service: Guarded, method: str, path: str, status: int
) -> None:
    data = {"/submit": {"url": URL}, "/batches": URL}.get(path)
    refused = ask(service, method, path, data=data)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == CHALLENGE
    assert refused.headers["Content-Type"] == "application/json"
    if method != "HEAD":
        assert refused.json()["error"]["code"] == "unauthorized"
    allowed = ask(service, method, path, f"Bearer {service.secrets['a@b']}", data=data)
    assert allowed.status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/check?id=none", 404),
        ("GET", "/jobs/none", 404),
        ("GET", "/batches/none", 404),
        ("GET", "/batches/none/manifest", 404),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/openapi.json", 200),
        ("OPTIONS", "/submit", 405),
        ("OPTIONS", "/metrics", 405),
        ("POST", "/nowhere", 404),
        ("PUT", "/submit", 405),
    ],
)
@pytest.mark.parametrize("header", [None, "Bearer wrong"])
def test_what_only_reads_needs_none(
    service: Guarded, method: str, path: str, status: int, header: str | None
) -> None:
    assert ask(service, method, path, header).status_code == status


def test_the_limits_count_by_token(service: Guarded) -> None:
    def submit(name: str, address: str) -> int:
        headers = {"X-Forwarded-For": address}
        bearer = f"Bearer {service.secrets[name]}"
        return ask(
            service, "POST", "/submit", bearer, data={"url": URL}, headers=headers
        ).status_code

    # One token from four addresses is one client, two tokens from one address are two.
    assert [submit("ann", f"192.0.2.{n}") for n in range(4)] == [202, 202, 202, 429]
    assert submit("Ольга", "192.0.2.0") == 202


def test_metrics_and_log_have_names_and_no_tokens(service: Guarded) -> None:
    secret = service.secrets['q"\\']
    bearer = f"Bearer {secret}"
    assert ask(service, "POST", "/submit", bearer, data={"url": URL}).status_code == 202
    text = ask(service, "GET", "/metrics", bearer).text
    (family,) = (
        family
        for family in text_string_to_metric_families(text)
        if family.name == "md5light_submitted"
    )
    counts = {sample.labels["token"]: sample.value for sample in family.samples}
    assert counts['q"\\'] == 1
    service.commands[0].wait_for_line(r'event=request method=POST .*token="q\\"\\\\"')
    shown = text + service.commands[0].lines
    assert secret not in shown
    assert digest(secret.encode()).hex() not in shown


@pytest.mark.parametrize("name", NAMES)
def test_curl_logs_in_with_a_name_and_a_token(service: Guarded, name: str, tmp_path: Path) -> None:
    def curl(*arguments: str) -> str:
        command = ["curl", "-sS", "-o", os.devnull, "-w", "%{http_code}", *arguments]
        url = f"{service.url}/metrics"
        done = subprocess.run([*command, url], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout

    netrc = tmp_path / "netrc"
    quoted = name.replace("\\", r"\\").replace('"', r"\"")
    netrc.write_text(
        f'machine 127.0.0.1 login "{quoted}" password {service.secrets[name]}\n', encoding="utf-8"
    )
    assert curl("-u", f"{name}:{service.secrets[name]}") == "200"
    assert curl("--netrc-file", str(netrc)) == "200"
    assert curl("-H", f"Authorization: Bearer {service.secrets[name]}") == "200"
    assert curl() == "401"


def test_a_changed_file_counts_at_once_and_a_broken_one_lets_nobody_in(tmp_path: Path) -> None:
    with Guarded(tmp_path) as service:
        server, tokened = service.start_server(), service.tokened

        def status(token: str) -> int:
            return ask(service, "DELETE", "/jobs/none", f"Bearer {token}").status_code

        token = tokened.add("new")
        assert status(token) == 404
        tokened.command("remove", "new")
        assert status(token) == 401
        tokened.file.rename(tmp_path / "aside")
        answers = [ask(service, "GET", "/metrics", "Bearer secret-0") for _ in range(3)]
        assert {answer.status_code for answer in answers} == {503}
        assert answers[0].json()["error"]["code"] == "tokens_unavailable"
        assert answers[0].headers["Retry-After"]
        (tmp_path / "aside").rename(tokened.file)
        assert status("secret-0") == 404
        assert server.lines.count("event=tokens_unavailable") == 1
        assert server.lines.count("event=tokens_available") == 1


def test_wrong_tokens_are_counted_over_http(tmp_path: Path) -> None:
    with Guarded(tmp_path) as service:
        server = service.start_server()
        answers = [ask(service, "POST", "/submit", "Bearer wrong") for _ in range(MAX_FAILURES + 5)]
        assert [each.status_code for each in answers] == [401] * MAX_FAILURES + [429] * 5
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
        assert server.lines.count("event=too_many_failures client=127.0.0.1") == 1
        assert ask(service, "GET", "/check?id=none").status_code == 404


def test_a_page_of_another_site_is_refused_with_a_token_too(service: Guarded) -> None:
    foreign = {"Origin": "http://elsewhere.example"}
    bearer = f"Bearer {service.secrets['Zoë']}"
    refused = ask(service, "POST", "/submit", bearer, headers=foreign, data={"url": URL})
    assert refused.status_code == 403


@pytest.mark.slow
def test_the_client_logs_in(service: Guarded, tmp_path: Path) -> None:
    def submit(name: str, token: str) -> CompletedProcess[str]:
        host = service.url.removeprefix("http://")
        server = f"http://{quote(name, safe='')}:{token}@{host}"
        return run("md5light", "submit", URL, cwd=tmp_path, MD5LIGHT_SERVER=server)

    known, unknown = submit("Ольга", service.secrets["Ольга"]), submit("Ольга", "wrong")
    assert (known.returncode, len(known.stdout.split())) == (0, 1), known.stderr
    assert unknown.returncode != 0
    assert "wrong" not in unknown.stdout
    assert "token" in unknown.stderr


@pytest.mark.slow
def test_a_token_passes_nginx(service: Guarded, tmp_path: Path) -> None:
    nginx = Nginx(tmp_path, service.url)
    nginx.start()
    try:
        for credentials, status in ((("x" * 64, service.secrets["x" * 64]), 202), (None, 401)):
            answer = requests.post(
                f"{nginx.url}/submit", data={"url": URL}, auth=credentials, timeout=10
            )
            assert answer.status_code == status
        assert answer.headers["WWW-Authenticate"] == CHALLENGE
    finally:
        nginx.stop()


@pytest.mark.slow
@pytest.mark.parametrize("scripted", [True, False])
def test_a_browser_logs_in_and_says_so_where_it_can_not(
    browser: Browser, tmp_path: Path, scripted: bool
) -> None:
    with Guarded(tmp_path) as service:
        service.start_server()
        for name, known in (("Ольга", True), ("Zoë", True), ("nobody", False)):
            credentials = {"username": name, "password": service.secrets.get(name, "wrong")}
            context = browser.new_context(
                java_script_enabled=scripted,
                http_credentials=credentials,  # type: ignore[arg-type]
            )
            page = context.new_page()
            page.goto(service.url)
            page.locator("#url").fill(URL)
            page.locator("#submit button").click()
            if known:
                expect(page.locator(".card")).to_have_count(1)
            else:
                expect(page.locator("#problem")).to_contain_text("The token, or its name, is wrong")
                assert page.locator("#url").input_value() == URL
            context.close()


# --- the commands --------------------------------------------------------------------------------


def test_a_token_is_printed_once_and_kept_as_a_hash(tokened: Tokened) -> None:
    token = tokened.add("ann")
    assert tokened.file.read_text() == f"ann:{digest(token.encode()).hex()}\n"
    assert stat.S_IMODE(tokened.file.stat().st_mode) == 0o600
    assert len(token) >= 43
    assert tokened.add("bob") != token
    assert tokened.command("list") == "ann\nbob\n"
    assert json.loads(tokened.command("list", json=True)) == ["ann", "bob"]
    added = json.loads(tokened.command("add", "Zoe\u0308", json=True))
    assert added["name"] == "Zoë"
    tokened.tokens().check(environ_of(f"Bearer {added['token']}"))


def test_other_lines_owner_and_mode_stay_as_they_are(tokened: Tokened) -> None:
    tokened.file.write_text(f"# who may submit\n\nann:{'0' * 64}")
    tokened.file.chmod(0o640)
    token = tokened.add("bob")
    assert tokened.command("remove", "ann") == "token ann removed\n"
    kept = f"# who may submit\n\nbob:{digest(token.encode()).hex()}\n"
    assert tokened.file.read_text() == kept
    assert stat.S_IMODE(tokened.file.stat().st_mode) == 0o640


def test_a_linked_file_is_changed_where_it_is(tokened: Tokened, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    tokened.file.symlink_to("elsewhere/tokens")
    tokened.add("ann")
    assert tokened.file.is_symlink()
    assert (tmp_path / "elsewhere/tokens").read_text().startswith("ann:")


def test_a_new_file_is_the_folders_owners_alone(tokened: Tokened, tmp_path: Path) -> None:
    if os.getuid() == 0:
        os.chown(tmp_path, 12345, 12346)
    tokened.add("ann")
    file, folder = tokened.file.stat(), tmp_path.stat()
    assert (file.st_uid, file.st_gid) == (folder.st_uid, folder.st_gid)
    assert stat.S_IMODE(file.st_mode) == 0o600


@pytest.mark.parametrize(
    ("verb", "name", "said"),
    [
        ("add", "ann", "there is a token ann already; remove it first"),
        ("remove", "bob", "there is no token bob"),
        ("add", "a b", "a b can't be a name"),
        ("add", "a:b", "a:b can't be a name"),
        ("add", "#a", "#a can't be a name"),
        ("add", "", " can't be a name"),
        ("add", "a\nb", r"a\nb can't be a name"),
        ("add", "x" * 65, "can't be a name"),
    ],
)
def test_what_can_not_be_done_is_said(tokened: Tokened, verb: str, name: str, said: str) -> None:
    write(tokened, ann="secret")
    before = tokened.file.read_text()
    with pytest.raises((NotDone, Refused)) as caught:
        tokened.command(verb, name)
    assert said in caught.value.message
    assert len(caught.value.message.splitlines()) == 1
    assert tokened.file.read_text() == before


@pytest.mark.parametrize("verb", ["add", "list", "remove"])
def test_no_command_changes_a_malformed_file(tokened: Tokened, verb: str) -> None:
    tokened.file.write_text("ann secret\n")
    with pytest.raises(ConfigError) as caught:
        tokened.command(verb, "ann")
    assert "secret" not in caught.value.message
    assert tokened.file.read_text() == "ann secret\n"


@pytest.mark.slow
def test_the_commands_exit_with_the_right_codes(tokened: Tokened, tmp_path: Path) -> None:
    def token(*arguments: str) -> CompletedProcess[str]:
        return run("md5light", "--config", str(tokened.config), *arguments, cwd=tmp_path)

    added = token("token", "add", "ann")
    assert added.returncode == 0
    assert added.stderr == "md5light: this token is not shown again; its hash is kept\n"
    tokened.tokens().check(environ_of(f"Bearer {added.stdout.strip()}"))
    assert token("token", "add", "ann").returncode == 1
    assert token("token", "add", "a b").returncode == 2
    assert token("config", "check").returncode == 0
    tokened.config.write_text("")
    unset = token("token", "add", "bob")
    assert (unset.returncode, unset.stdout) == (78, "")
    assert "[server] tokens_file is empty" in unset.stderr


@pytest.mark.slow
def test_commands_at_once_lose_no_token(tokened: Tokened, tmp_path: Path) -> None:
    names = [f"name{number}" for number in range(4)]
    arguments = ("--config", str(tokened.config), "token", "add")
    started = [start("md5light", *arguments, name, cwd=tmp_path) for name in names]
    for process in started:
        process.communicate(timeout=30)
    assert sorted(tokened.command("list").split()) == names
