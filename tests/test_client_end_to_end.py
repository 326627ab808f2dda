"""The client with a real server and a real pool, over real files."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.client import environment, run
from tests.origin import Origin
from tests.service import Service, running
from tests.terminal import Terminal

pytestmark = pytest.mark.slow

MD5LIGHT = [sys.executable, "-m", "md5light"]
#: runs a command, prints the most KiB of memory that it had, and exits as it did
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""

ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service")) as service:
        yield service


def md5(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


def serve(origin: Origin, *names: str) -> dict[str, bytes]:
    """Serve a file for each name below /files/; returns their bytes."""
    bodies = {name: f"the file {name}\n".encode() for name in names}
    for name, body in bodies.items():
        origin.serve(f"/files/{quote(name)}", body)
    return bodies


def test_a_mirror_is_verified_as_with_md5sum(
    service: Service, origin: Origin, tmp_path: Path
) -> None:
    bodies = serve(origin, "a", "b", "c")
    sums = [f"{md5(body)}  {name}\n" for name, body in bodies.items()]
    sums[1] = f"{md5(b'another')}  b\n"
    sums.append(f"{md5(b'')} *gone\n")
    (tmp_path / "MD5SUMS").write_text("".join(sums))
    base = ["--base", origin.url("/files/")]
    done = run("verify", "MD5SUMS", *base, server=service.url, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "a: OK",
        "b: FAILED",
        "c: OK",
        "gone: FAILED open or read",
    ]
    assert "md5light: WARNING: 1 computed checksum did NOT match" in done.stderr
    assert "404" in done.stderr
    (tmp_path / "MD5SUMS").write_text(sums[0] + sums[2])
    quiet = run("verify", "-q", "MD5SUMS", *base, server=service.url, cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_md5sum_reads_the_file_that_submit_writes(
    service: Service, origin: Origin, tmp_path: Path
) -> None:
    bodies = serve(origin, "a", "b c")
    (tmp_path / "list").write_text(f"{origin.url('/files/a')}\n")
    more = origin.url("/files/b%20c")
    words = ["submit", "list", more, "-o", "MD5SUMS", "--names", "basename"]
    done = run(*words, server=service.url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    first, summary = done.stderr.splitlines()
    assert ID.fullmatch(first)
    assert re.fullmatch(r"md5light: 2 lines in \d+ s: 2 hashed", summary)
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
    checked = subprocess.run(
        ["md5sum", "-c", "--strict", "MD5SUMS"], cwd=tmp_path, capture_output=True
    )
    assert checked.returncode == 0, checked


def test_the_id_leads_to_everything(service: Service, origin: Origin, tmp_path: Path) -> None:
    gate = origin.gate()
    serve(origin, "a")
    origin.serve("/files/slow", lambda peer: gate.wait(30) and peer.reply(b"slow"))
    urls = "".join(origin.url(f"/files/{name}") + "\n" for name in ("a", "slow"))
    options = ["--digest", "sha256", "--name", "a label"]
    done = run("submit", "-", *options, server=service.url, cwd=tmp_path, stdin=urls)
    assert done.returncode == 0, done.stderr
    batch_id = done.stdout.removesuffix("\n")
    status = run("status", batch_id, server=service.url, cwd=tmp_path)
    assert status.returncode == 0
    assert re.search(r"^name +a label$", status.stdout, re.MULTILINE)
    assert re.search(r"^counts total +2$", status.stdout, re.MULTILINE)
    canceled = run("cancel", batch_id, server=service.url, cwd=tmp_path)
    assert (canceled.returncode, canceled.stdout) == (0, f"{batch_id} canceled\n")
    again = run("cancel", batch_id, server=service.url, cwd=tmp_path)
    assert (again.returncode, "has ended" in again.stderr) == (1, True)
    assert run("wait", batch_id, server=service.url, cwd=tmp_path).returncode == 1
    gate.set()
    retried = run("retry", batch_id, server=service.url, cwd=tmp_path)
    assert retried.stdout.startswith(f"{batch_id} ")
    waited = run("wait", batch_id, "--manifest", "csv", server=service.url, cwd=tmp_path)
    assert waited.returncode == 0, waited.stderr
    assert waited.stdout.count("\n") == 3
    shown = run("status", batch_id, "--json", server=service.url, cwd=tmp_path)
    assert json.loads(shown.stdout)["counts"]["hashed"] == 2
    manifest = run("manifest", batch_id, server=service.url, cwd=tmp_path).stdout
    assert [json.loads(line)["sha256"] for line in manifest.splitlines()] == [
        hashlib.sha256(body).hexdigest() for body in (b"the file a\n", b"slow")
    ]


def test_bad_lines_are_refused_or_kept(service: Service, origin: Origin, tmp_path: Path) -> None:
    serve(origin, "a")
    (tmp_path / "list").write_text(f"{origin.url('/files/a')}\nno url\n")
    refused = run("submit", "list", server=service.url, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "line 2: " in refused.stderr
    assert "--skip-invalid keeps them" in refused.stderr
    assert "skip_invalid" not in refused.stderr
    kept = run("submit", "list", "--skip-invalid", "--wait", server=service.url, cwd=tmp_path)
    assert kept.returncode == 1
    assert [json.loads(line)["status"] for line in kept.stdout.splitlines()] == ["hashed", "failed"]
    checked = run("verify", "list", "--skip-invalid", server=service.url, cwd=tmp_path)
    assert checked.returncode == 1
    assert checked.stdout.splitlines()[1] == "line 2: FAILED open or read"
    assert "\nmd5light: line 2: failed: " in kept.stderr


def test_a_list_for_google_needs_all_lines_or_a_flag(
    service: Service, origin: Origin, tmp_path: Path
) -> None:
    bodies = serve(origin, "a")
    words = ["submit", origin.url("/files/a"), origin.url("/gone"), "--wait", "--manifest", "gcs"]
    refused = run(*words, server=service.url, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--partial leaves the others out" in refused.stderr
    done = run(*words, "--partial", server=service.url, cwd=tmp_path)
    assert done.returncode == 1
    header, line = done.stdout.splitlines()
    assert (header, line.split("\t")[1]) == ("TsvHttpData-1.0", str(len(bodies["a"])))


def test_a_bag_is_verified_without_storing_it(
    service: Service, origin: Origin, tmp_path: Path
) -> None:
    bodies = serve(origin, "a", "b")
    (tmp_path / "bag").mkdir()
    tags = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
    fetch = [f"{origin.url('/files/a')} {len(bodies['a'])} data/100%25\n"]
    fetch += [f"{origin.url('/files/b')} 1 data/b\n"]
    sums = [f"{hashlib.sha512(bodies['a']).hexdigest()}  data/100%25\n"]
    sums += [f"{hashlib.sha512(bodies['b']).hexdigest()}  data/b\n"]
    contents = {
        "bagit.txt": tags,
        "fetch.txt": "".join(fetch),
        "manifest-sha512.txt": "".join(sums),
    }
    for name, content in contents.items():
        (tmp_path / "bag" / name).write_text(content)
    done = run("verify", "--bag", "bag", server=service.url, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == "data/100%: OK\ndata/b: FAILED\n"  # its size is wrong
    assert f"size is {len(bodies['b'])}, not 1" in done.stderr


def test_neither_configuration_nor_database_is_looked_at(
    service: Service, origin: Origin, tmp_path: Path
) -> None:
    serve(origin, "a")
    wrong = {"MD5LIGHT_CONFIG": "none.ini", "MD5LIGHT_QUEUE_DATABASE": "/nowhere/x"}
    url = origin.url("/files/a")
    done = run("submit", url, "--wait", server=service.url, cwd=tmp_path, **wrong)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_killed_is_waited_for(origin: Origin, tmp_path: Path) -> None:
    gate = origin.gate()
    origin.serve("/files/slow", lambda peer: gate.wait(60) and peer.reply(b"slow"))
    folder = tmp_path / "home"
    folder.mkdir()
    with running(tmp_path) as service:
        env = environment(service.url, folder)
        command = [*MD5LIGHT, "submit", origin.url("/files/slow"), "-o", "MD5SUMS"]
        with Terminal(command, env=env, cwd=folder, columns=300) as terminal:
            terminal.wait_for("0 of 1 lines")
            port = service.url.rpartition(":")[2]
            service.commands[0].stop(signal.SIGKILL)
            terminal.wait_for("waiting for it")
            service.start_server("--port", port)
            gate.set()
            assert terminal.end() == 0
            assert "answers again" in terminal.output
            batch_id, *said, summary, empty = terminal.screen()
            assert ID.fullmatch(batch_id)
            assert (len(said), empty) == (2, "")
            assert summary.endswith("1 hashed")
    assert (folder / "MD5SUMS").read_text() == f"{md5(b'slow')}  {origin.url('/files/slow')}\n"


def test_ctrl_c_and_wait_end_as_if_nothing_had_happened(origin: Origin, tmp_path: Path) -> None:
    gate = origin.gate()
    origin.serve("/files/slow", lambda peer: gate.wait(60) and peer.reply(b"slow"))
    with running(tmp_path) as service:
        env = environment(service.url, tmp_path)
        command = [*MD5LIGHT, "submit", origin.url("/files/slow"), "--wait", "-o", "MD5SUMS"]
        with Terminal(command, env=env, cwd=tmp_path, columns=300) as terminal:
            terminal.wait_for("0 of 1 lines")
            terminal.type("\x03")
            assert terminal.end() == 130
            again = re.findall(r"to wait again: md5light (.*)\r\n", terminal.output)[0].split()
        gate.set()
        done = run(*again, server=service.url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "MD5SUMS").read_text().startswith(md5(b"slow"))


def test_a_token_comes_from_netrc_or_the_url(origin: Origin, tmp_path: Path) -> None:
    serve(origin, "a")
    tokens = tmp_path / "tokens"
    with Service(tmp_path, server={"port": 0, "tokens_file": tokens}) as service:
        added = run(
            *["--config", str(service.config), "token", "add", "ann"], server="", cwd=tmp_path
        )
        assert added.returncode == 0, added.stderr
        token = added.stdout.split()[-1]
        service.start_server()
        url = origin.url("/files/a")
        refused = run("submit", url, server=service.url, cwd=tmp_path)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.count("\n") == 1
        assert "~/.netrc" in refused.stderr
        wrong = service.url.replace("//", "//ann:wrong@")
        assert run("submit", url, server=wrong, cwd=tmp_path).returncode == 1
        right = service.url.replace("//", f"//ann:{token}@")
        done = run("submit", url, server=right, cwd=tmp_path)
        assert ID.fullmatch(done.stdout.strip())
        netrc = tmp_path / ".netrc"
        netrc.write_text(f"machine 127.0.0.1 login ann password {token}\n")
        netrc.chmod(0o600)
        done = run("submit", url, "-v", server=service.url, cwd=tmp_path)
        assert ID.fullmatch(done.stdout.strip())
        assert token not in done.stderr + refused.stderr


def test_a_large_list_takes_little_memory(service: Service, tmp_path: Path) -> None:
    """Refused as too large, it was sent; the process stays small."""
    (tmp_path / "list").write_text("https://files.example.org/a\n" * 2_000_000)
    # A child's figure begins with the size of the process that made it, so a small one does.
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *MD5LIGHT, "submit", "list"],
        cwd=tmp_path,
        env=environment(service.url, tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "is larger than" in done.stderr
    assert int(done.stdout) < 60 * 1024
