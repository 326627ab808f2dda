"""`verify` prints as `md5sum -c` does, which runs beside it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from md5light.lists.entry import Entry
from md5light.lists.names import escape
from tests.client import BATCH, batch, error, ndjson, run, serve
from tests.origin import Origin

pytestmark = pytest.mark.slow

NAMES = ("a.iso", "dir/b c", "d\\e", "f\ng", "é", "last")
BASE = "https://mirror.example.org/iso/"
DIGEST = {"md5": "0" * 32}


def entry(position: int, status: str, name: str | None = "a", **more: object) -> Entry:
    found = {"digests": DIGEST} if status in ("matched", "hashed") else {}
    values: dict[str, Any] = {"expected": DIGEST, **found, **more}
    return Entry(position, "", f"{BASE}{position}", status, name, **values)


def served(origin: Origin, *entries: Entry) -> str:
    statuses = [each.status for each in entries]
    counts = {status: statuses.count(status) for status in statuses}
    return serve(origin, batch("running", waiting=1), batch(**counts), manifest=ndjson(*entries))


def write_files(folder: Path, *, bad: bool) -> list[Entry]:
    """Write MD5SUMS and the files that it names; return the entries of the like manifest."""
    entries = []
    (folder / "dir").mkdir()
    for position, name in enumerate(NAMES, 1):
        status = "matched" if not bad else ("matched", "mismatched", "failed")[position % 3]
        if status != "failed":
            (folder / name).write_text("wrong" if status == "mismatched" else "right")
        entries.append(entry(position, status, name))
    right = hashlib.md5(b"right").hexdigest()
    sums = [f"{mark}{right}  {escaped}\n" for mark, escaped in map(escape, NAMES)]
    (folder / "MD5SUMS").write_text("".join(sums))
    return entries


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("bad", [False, True])
def test_it_prints_what_md5sum_prints(
    quiet: bool, bad: bool, origin: Origin, tmp_path: Path
) -> None:
    """The same files, in the folder for md5sum and in the manifest for the client."""
    entries = write_files(tmp_path, bad=bad)
    flag = ["--quiet"] if quiet else []
    theirs = subprocess.run(
        ["md5sum", "-c", *flag, "MD5SUMS"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    command = ["verify", "MD5SUMS", "--base", BASE, *flag]
    ours = run(*command, server=served(origin, *entries), cwd=tmp_path)
    assert ours.stdout == theirs.stdout
    assert ours.returncode == theirs.returncode == int(bad)
    warnings = [line for line in theirs.stderr.splitlines() if "WARNING" in line]
    said = [line for line in ours.stderr.splitlines() if "WARNING" in line]
    assert said == [line.replace("md5sum:", "md5light:") for line in warnings]
    assert len(said) == (2 if bad else 0)
    if quiet and not bad:
        assert ours.stderr == ""


def test_the_reason_of_each_failure_is_told(origin: Origin, tmp_path: Path) -> None:
    failed = entry(1, "failed", error_code="http_status", error_message="It answered 404.")
    wrong = entry(2, "mismatched", "b", digests={"md5": "1" * 32})
    canceled = entry(3, "canceled", None)
    done = run("verify", "x", server=served(origin, failed, wrong, canceled), cwd=tmp_path)
    assert done.returncode == 1  # there is no such list
    (tmp_path / "x").write_text("x")
    done = run("verify", "x", server=served(origin, failed, wrong, canceled), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "a: FAILED open or read",
        "b: FAILED",
        f"{BASE}3: FAILED open or read",
    ]
    assert done.stderr.splitlines() == [
        BATCH,
        "md5light: a: failed: It answered 404. (http_status)",
        f"md5light: b: mismatched: md5 is {'1' * 32}, not {'0' * 32}",
        f"md5light: {BASE}3: canceled",
        "md5light: WARNING: 2 listed files could not be read",
        "md5light: WARNING: 1 computed checksum did NOT match",
    ]


@pytest.mark.parametrize(("matched", "code"), [(0, 1), (1, 0)])
def test_lines_without_a_sum_are_no_success(
    matched: int, code: int, origin: Origin, tmp_path: Path
) -> None:
    entries = [entry(1, "hashed", expected={}), *[entry(2, "matched", "b")] * matched]
    done = run("verify", "-", server=served(origin, *entries), cwd=tmp_path, stdin="x")
    assert done.returncode == code
    assert done.stdout == "a: NO CHECKSUM\n" + "b: OK\n" * matched
    assert "WARNING: 1 line has no checksum to compare with" in done.stderr


def test_what_a_terminal_might_obey_is_not_said(origin: Origin, tmp_path: Path) -> None:
    bad = entry(1, "failed", "\x1b[2Ja", error_code="tls_failed", error_message="No.")
    done = run("verify", "-", server=served(origin, bad), cwd=tmp_path, stdin="x")
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("manifest", [b"<html>", b"{}\n", b"[]\n", b'{"position":1}\n'])
def test_a_manifest_of_another_form_exits_with_69(
    manifest: bytes, origin: Origin, tmp_path: Path
) -> None:
    server = serve(origin, batch(matched=1), manifest=manifest)
    done = run("verify", "-", server=server, cwd=tmp_path, stdin="x")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.count("\n") == 2


# --- the summary of submit --wait -----------------------------------------------------------------


def test_the_summary_names_the_first_bad_lines(origin: Origin, tmp_path: Path) -> None:
    wrong = {"digests": {"md5": "1" * 32}}
    slow = {"error_code": "timed_out", "error_message": "Too slow."}
    bad = [
        entry(1, "mismatched", "m", **wrong),
        entry(2, "failed", "f", **slow),
        entry(3, "canceled", "c"),
        entry(8, "failed", "g", **slow),
        entry(9, "failed", "h", **slow),
    ]
    server = serve(
        origin, batch(matched=1_993, failed=5, mismatched=1, canceled=1), manifest=b"the manifest"
    )
    path = f"/batches/{BATCH}/manifest?status=failed%2Cmismatched%2Ccanceled&limit=5"
    origin.serve(path, ndjson(*bad))
    done = run("submit", "-", "--wait", "-q", server=server, cwd=tmp_path, stdin="x")
    assert (done.returncode, done.stdout) == (1, "the manifest")
    lines = done.stderr.splitlines()
    assert lines[0] == BATCH
    assert lines[1:] == [
        "md5light: 2,000 lines in 0 s: 1,993 matched, 1 mismatched, 5 failed, 1 canceled",
        f"md5light: line 1: m: mismatched: md5 is {'1' * 32}, not {'0' * 32}",
        "md5light: line 2: f: failed: Too slow. (timed_out)",
        "md5light: line 3: c: canceled",
        "md5light: line 8: g: failed: Too slow. (timed_out)",
        "md5light: line 9: h: failed: Too slow. (timed_out)",
        "md5light: and 2 more",
        f"md5light: all of them, as a list: md5light manifest {BATCH} --manifest failed",
    ]


def test_names_that_are_ambiguous_are_told_with_the_id(origin: Origin, tmp_path: Path) -> None:
    server = serve(origin, batch(matched=2))
    answer = error("409 Conflict", "ambiguous_names", "Line 2 has the name of another.")
    origin.serve(f"/batches/{BATCH}/manifest", answer)
    done = run("submit", "-", "-o", "x", server=server, cwd=tmp_path, stdin="x")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{BATCH}\n")
    assert "Line 2 has the name of another." in done.stderr
    assert not (tmp_path / "x").exists()
