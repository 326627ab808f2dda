"""Manifests read by the programs that they are written for, and lists that those write."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bagit
import pooch
import pytest

from md5light.finding import ALGORITHMS
from md5light.lists.entry import Entry
from md5light.lists.lines import Line
from md5light.lists.names import path_of
from md5light.lists.reading import read
from md5light.lists.writing import write
from tests.origin import Origin

#: names that a file can have, and that some program has stumbled over
ODD_NAMES = [
    "plain.txt",
    "with space.txt",
    " leading and trailing ",
    "*star",
    ".hidden",
    "-dash",
    "#hash",
    "paren) = x",
    "MD5 (a) = b",
    "quote\"s and 'apostrophes'",
    "semicolon;comma,tab\tend",
    "100%25 $HOME `id`",
    "grün/日本/𝄞.txt",
    "n" * 250,
]
#: names that GNU's tools escape
ESCAPED_NAMES = ["back\\slash", "back\\nslash", "line\nfeed", "carriage\rreturn", "end\\"]


def digests(body: bytes) -> dict[str, str]:
    return {algorithm: hashlib.new(algorithm, body).hexdigest() for algorithm in ALGORITHMS}


def fill(directory: Path, names: list[str]) -> list[Entry]:
    """Make the files, and return the manifest's entries for them."""
    entries = []
    for position, name in enumerate(names, 1):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        body = f"the body of {position}".encode() * position
        path.write_bytes(body)
        url = f"http://h/{position}"
        entries.append(
            Entry(
                position,
                url,
                url,
                "hashed",
                name=name,
                size=len(body),
                digests=digests(body),
            )
        )
    return entries


def manifest(entries: list[Entry], path: Path, format: str, **options: Any) -> Path:
    path.write_bytes(b"".join(write(entries, format, **options)))
    return path


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "RCLONE_CONFIG": "/dev/null"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done
    return done.stdout + done.stderr


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    return directory


def found(text: str, **options: Any) -> dict[str | None, dict[str, str]]:
    """Read a list; return what is expected of each name."""
    lines = list(read([text.encode()], base="http://h/", **options))
    assert all(isinstance(line, Line) for line in lines), lines
    return {line.name: dict(line.expected) for line in lines if isinstance(line, Line)}


FAILED = Entry(
    99, "x", "http://h/x\ny", "failed", error_code="http_status", error_message="It was\n404."
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_sums_are_checked_by_coreutils(algorithm: str, tmp_path: Path, directory: Path) -> None:
    entries = [FAILED, *fill(directory, ODD_NAMES + ESCAPED_NAMES)]
    sums = manifest(entries, tmp_path / "sums", f"{algorithm}sum", names="name")
    assert sums.read_text().startswith("# failed: It was 404. (http_status): http://h/x\\ny\n")
    output = run(f"{algorithm}sum", "-c", "--strict", sums, cwd=directory)
    assert output.count(": OK\n") == len(entries) - 1
    assert "WARNING" not in output
    (directory / "plain.txt").write_text("changed")
    assert "plain.txt: FAILED" in run(f"{algorithm}sum", "-c", sums, cwd=directory, status=1)


def test_bsd_is_checked_by_cksum(tmp_path: Path, directory: Path) -> None:
    entries = [FAILED, *fill(directory, ODD_NAMES + ESCAPED_NAMES)]
    sums = manifest(entries, tmp_path / "sums", "bsd", names="name")
    output = run("cksum", "-c", "--strict", sums, cwd=directory)
    assert output.count(": OK\n") == len(ALGORITHMS) * (len(entries) - 1)


@pytest.mark.parametrize(
    "command",
    [
        ["md5sum"],
        ["md5sum", "--binary"],
        ["sha1sum", "--tag"],
        ["sha256sum"],
        ["sha512sum", "--tag"],
        ["cksum", "--algorithm=sha256"],
        ["cksum", "--algorithm=md5", "--untagged"],
    ],
)
def test_what_coreutils_write_is_read(command: list[str], directory: Path) -> None:
    entries = fill(directory, ODD_NAMES + ESCAPED_NAMES)
    names = [entry.name or "" for entry in entries]
    [algorithm] = [each for each in ALGORITHMS if each in "".join(command)]
    for before in ("", "./"):
        output = run(*command, "--", *(before + name for name in names), cwd=directory)
        assert found(output) == {
            before + (entry.name or ""): {algorithm: entry.digests[algorithm]} for entry in entries
        }


def test_what_openssl_writes_is_read(directory: Path) -> None:
    [entry] = fill(directory, ["a b.txt"])
    for algorithm in ALGORITHMS:
        output = run("openssl", "dgst", f"-{algorithm}", "a b.txt", cwd=directory)
        assert found(output) == {"a b.txt": {algorithm: entry.digests[algorithm]}}


# rclone knows nothing of GNU's escapes, and shows control characters as symbols.
RCLONE_NAMES = [name for name in ODD_NAMES if name.isprintable()]


@pytest.mark.slow
def test_rclone(tmp_path: Path, directory: Path) -> None:
    entries = [FAILED, *fill(directory, RCLONE_NAMES)]
    sums = manifest(entries, tmp_path / "sums", "md5sum", names="name")
    output = run("rclone", "hashsum", "MD5", "-C", sums, directory, cwd=tmp_path)
    assert f"{len(entries) - 1} matching files" in output
    assert "0 differences found" in output
    output = run("rclone", "check", "-C", "MD5", sums, directory, cwd=tmp_path)
    assert "0 differences found" in output
    (directory / "plain.txt").write_text("changed")
    assert "1 differences found" in run(
        "rclone", "check", "-C", "MD5", sums, directory, cwd=tmp_path, status=1
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--base64"]])
def test_what_rclone_writes_is_read(options: list[str], tmp_path: Path, directory: Path) -> None:
    entries = fill(directory, RCLONE_NAMES)
    output = run("rclone", "hashsum", "SHA-1", *options, directory, cwd=tmp_path)
    assert found(output) == {entry.name: {"sha1": entry.digests["sha1"]} for entry in entries}


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


def test_pooch(tmp_path: Path, directory: Path, origin: Origin) -> None:
    entries = []
    for entry in fill(directory, ODD_NAMES):
        url = origin.serve(f"/{entry.position}", (directory / (entry.name or "")).read_bytes())
        entries.append(entry._replace(url=url))
    registry = manifest([FAILED, *entries], tmp_path / "registry", "pooch", names="name")
    books = pooch.create(tmp_path / "cache", base_url="", registry=None)
    books.load_registry(registry)
    assert books.registry == {entry.name: f"sha256:{entry.digests['sha256']}" for entry in entries}
    for entry in entries:
        fetched = books.fetch(entry.name)
        assert hashlib.md5(Path(fetched).read_bytes()).hexdigest() == entry.digests["md5"]


def test_pooch_with_paths(tmp_path: Path, origin: Origin) -> None:
    url = origin.serve("/d/a%20b.txt", b"body")
    entries = [Entry(1, url, url, "hashed", size=4, digests={"md5": digests(b"body")["md5"]})]
    registry = manifest(entries, tmp_path / "registry", "pooch", names="path")
    books = pooch.create(tmp_path / "cache", base_url="", registry=None)
    books.load_registry(registry)
    [name] = books.registry_files
    assert name == f"{url.split('/')[2]}/d/a b.txt"
    assert Path(books.fetch(name)).read_bytes() == b"body"


@pytest.mark.slow
def test_paths_are_those_of_wget(tmp_path: Path, origin: Origin) -> None:
    served = ["/d/a.txt", "/d/a%20b.txt?c=/d", "/", "/d/?q=1", "//e//f", "/%E6%97%A5", "/x%2Fy"]
    served += ["/p%25q?z=%20w", "/g/h", "/%0Ab"]
    for path in served:
        origin.serve(path, b"the body")
    urls = [origin.url(path) for path in [*served, "/x/../g/./h"]]
    run("wget", "--no-proxy", "--force-directories", "--no-verbose", *urls, cwd=tmp_path)
    # wget stores what it was told twice as h.1.
    stored = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {path_of(url) for url in urls} == {path.removesuffix(".1") for path in stored}


def test_registries_that_pooch_makes_are_read(tmp_path: Path, directory: Path) -> None:
    entries = fill(directory, ["a.txt", "b/c.txt"])
    pooch.make_registry(str(directory), str(tmp_path / "registry"))
    assert found((tmp_path / "registry").read_text(), format="pooch") == {
        entry.name: {"sha256": entry.digests["sha256"]} for entry in entries
    }


def test_bagit(tmp_path: Path) -> None:
    names = ["a.txt", "with space.txt", "grün/日本.txt"]
    bag = tmp_path / "bag"
    entries = [entry._replace(name=f"data/{entry.name}") for entry in fill(bag / "data", names)]
    (bag / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n")
    manifest(entries, bag / "manifest-md5.txt", "md5sum", names="name")
    manifest(entries, bag / "manifest-sha512.txt", "sha512sum", names="name")
    bagit.Bag(str(bag)).validate()
    (bag / "data/a.txt").write_text("changed")
    with pytest.raises(bagit.BagValidationError):
        bagit.Bag(str(bag)).validate()


def test_manifests_that_bagit_writes_are_read(directory: Path) -> None:
    entries = fill(directory, ["a.txt", "with space.txt", "grün/日本.txt"])
    bagit.make_bag(str(directory), checksums=["sha256"])
    assert found((directory / "manifest-sha256.txt").read_text("utf-8")) == {
        f"data/{entry.name}": {"sha256": entry.digests["sha256"]} for entry in entries
    }


def test_csv(tmp_path: Path, directory: Path) -> None:
    entries = fill(directory, [*ODD_NAMES, *ESCAPED_NAMES, "=1+1", "@SUM(A1)"])
    path = manifest(entries, tmp_path / "manifest.csv", "csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert [row["name"] for row in rows] == [entry.name for entry in entries]
    assert [(row["md5"], row["size"]) for row in rows] == [
        (entry.digests["md5"], str(entry.size)) for entry in entries
    ]
    assert b"\r\n" not in path.read_bytes()


def test_jq(tmp_path: Path, directory: Path) -> None:
    entries = fill(directory, ODD_NAMES + ESCAPED_NAMES)
    path = manifest([FAILED, *entries], tmp_path / "manifest.ndjson", "ndjson")
    wanted = 'select(.status == "hashed") | {name, md5, size, sha512}'
    output = run("jq", "--compact-output", wanted, path, cwd=tmp_path)
    assert [json.loads(line) for line in output.splitlines()] == [
        {
            "name": entry.name,
            "md5": entry.digests["md5"],
            "size": entry.size,
            "sha512": entry.digests["sha512"],
        }
        for entry in entries
    ]
    assert "http_status" in run("jq", "--raw-output", ".error.code", path, cwd=tmp_path)


def test_what_jq_writes_is_read(directory: Path) -> None:
    record = {
        "files": [{"key": "a b", "links": {"self": "http://h/a"}, "checksum": "md5:" + "0" * 32}]
    }
    source = directory / "record.json"
    source.write_text(json.dumps(record))
    for option, wanted in (
        ("--compact-output", ".files[] | {url: .links.self, checksum, name: .key}"),
        ("--tab", "[.files[] | {url: .links.self, checksum, name: .key}]"),
        (
            "--raw-output",
            '["url", "checksum", "name"], (.files[] | [.links.self, .checksum, .key]) | @tsv',
        ),
        (
            "--raw-output",
            '["url", "checksum", "name"], (.files[] | [.links.self, .checksum, .key]) | @csv',
        ),
    ):
        output = run("jq", option, wanted, source, cwd=directory)
        assert found(output) == {"a b": {"md5": "0" * 32}}


def test_transfer_lists(tmp_path: Path, directory: Path) -> None:
    entries = fill(directory, ["b", "a"])
    rows = manifest(entries, tmp_path / "list.tsv", "gcs").read_text().splitlines()
    assert rows[0] == "TsvHttpData-1.0"
    assert rows[1:] == sorted(rows[1:])
    url, size, md5 = rows[1].split("\t")
    assert (url, size) == ("http://h/1", "13")
    assert base64.b64decode(md5).hex() == entries[0].digests["md5"]
