"""What the client sends: lists of files, standard input, URLs and bags, as one list."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import tracemalloc
from pathlib import Path

import bagit
import pytest

from md5light.client.body import Body, open_list
from md5light.errors import NotDone, Refused
from md5light.lists.reading import read

MD5 = "f4afe93ad799484b1d512cc20e93efd1"
A, B = "https://example.org/a", "https://example.org/b"


def sent(*arguments: object, format: str = "auto", bag: Path | None = None) -> bytes:
    with contextlib.ExitStack() as stack:
        folder = None if bag is None else str(bag)
        file = open_list([str(each) for each in arguments], format, folder, stack)
        file.seek(0)
        return file.read()


def lists(folder: Path, *contents: str | bytes) -> list[Path]:
    paths = [folder / f"list-{number}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return paths


def test_one_list_is_sent_byte_for_byte(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfhttps://example.org/\xff\r\nno end"
    assert sent(*lists(tmp_path, content)) == content


def test_urls_are_lines() -> None:
    assert sent(A, "HTTPS://EXAMPLE.ORG/é") == f"{A}\nHTTPS://EXAMPLE.ORG/é\n".encode()


def test_lists_are_joined_in_their_order(tmp_path: Path) -> None:
    first, second = lists(tmp_path, f"# one\n{A} 1", f"\ufeff{A}?2\r\n")
    joined = sent(B, first, A, B, second)
    assert joined == f"{B}\n# one\n{A} 1\n{A}\n{B}\n{A}?2\r\n".encode()


def test_lists_of_different_encodings_are_joined(tmp_path: Path) -> None:
    joined = sent(*lists(tmp_path, f"{A}/é\n".encode("utf-16"), f"{B}/é\n"))
    assert joined == f"{A}/é\n{B}/é\n".encode()


@pytest.mark.parametrize("separator", [",", "\t"])
def test_tables_are_joined_under_one_header(separator: str, tmp_path: Path) -> None:
    header = f"url{separator}md5\n"
    rows = [f"{url}{separator}{MD5}\n" for url in (A, B)]
    first, second = lists(tmp_path, header + rows[0], f"\r\n# made today\n{header}{rows[1]}")
    assert sent(first, second) == f"{header}{rows[0]}{rows[1]}".encode()


def test_a_header_of_two_lines_is_left_out_whole(tmp_path: Path) -> None:
    header = 'url,"a\r\nb"\r\n'
    first, second = lists(tmp_path, f"{header}{A},1\r\n", f"{header}{B},2\r\n")
    joined = sent(first, second, format="csv")
    assert joined == f"{header}{A},1\r\n{B},2\r\n".encode()


def test_an_empty_list_between_others_changes_nothing(tmp_path: Path) -> None:
    first, empty, last = lists(tmp_path, A, "\n# nothing\n", B)
    assert sent(first, empty, last) == f"{A}\n{B}\n".encode()


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (f"{A}\n", f"{MD5}  a\n", "its format is sums, that of the list before is urls"),
        (f"url,md5\n{A},\n", f"url,size\n{B},1\n", "its header differs from that of the list"),
        (f'["{A}"]', f'["{B}"]', "a JSON array can't be joined"),
        (f"{A}\n", "url,url\n", "The header names a column twice."),
    ],
)
def test_lists_that_can_not_be_joined_are_refused(
    first: str, second: str, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=problem):
        sent(*lists(tmp_path, first, second))


def test_a_pipe_is_read_once_and_sent_twice(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    threading.Thread(target=pipe.write_text, args=[A], daemon=True).start()
    with contextlib.ExitStack() as stack:
        body = Body({"name": "é"}, open_list([str(pipe)], "auto", None, stack))
        first, second = b"".join(body), b"".join(body)
    assert first == second
    assert len(body) == len(first)
    assert f"\r\n\r\n{A}\r\n--".encode() in first


def test_a_file_that_grows_is_sent_as_long_as_was_said(tmp_path: Path) -> None:
    (path,) = lists(tmp_path, A)
    with contextlib.ExitStack() as stack:
        body = Body({}, open_list([str(path)], "auto", None, stack))
        path.write_text(A * 2)
        assert len(b"".join(body)) == len(body)


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotDone, match="none: No such file or directory"):
        sent(tmp_path / "none")
    with pytest.raises(NotDone, match="Is a directory"):
        sent(tmp_path)


@pytest.mark.parametrize("url", ["ftp://files.example.org/a", "http://", "https:///a"])
def test_a_url_of_another_kind_is_not_taken_for_a_file(url: str) -> None:
    with pytest.raises(Refused, match=f"{url}: a URL begins with http:// or https:// and"):
        sent(url)


def test_a_list_is_never_in_memory(tmp_path: Path) -> None:
    (path,) = lists(tmp_path, f"{A}\n" * 100_000)
    os.mkfifo(pipe := tmp_path / "pipe")
    threading.Thread(target=pipe.write_bytes, args=[path.read_bytes()], daemon=True).start()
    tracemalloc.start()
    with contextlib.ExitStack() as stack:
        body = Body({}, open_list([str(path), str(pipe)], "auto", None, stack))
        sizes = [len(piece) for piece in body]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(sizes) == len(body) > 20 * 100_000
    assert peak < 2**20


# --- bags -----------------------------------------------------------------------------------------


def bag_of(folder: Path, **files: str) -> Path:
    """Make a bag by hand; the names of files have `_` where they have `.` or `-`."""
    folder.mkdir()
    declaration = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
    for name, content in {"bagit.txt": declaration, **files}.items():
        (folder / name).write_bytes(content.encode())
    return folder


def bag_lines(folder: Path) -> list[dict[str, object]]:
    content = sent(bag=folder)
    assert read([content]).format == "ndjson"
    return [json.loads(line) for line in content.splitlines()]


def test_a_bag_becomes_lines_with_all_its_digests(tmp_path: Path) -> None:
    sha = "0" * 64
    bag = bag_of(
        tmp_path / "bag",
        **{
            "fetch.txt": f"{A} 5 data/a\n{B}\t-\tdata/b c\r\n",
            "manifest-md5.txt": f"{MD5}  data/a\n{MD5} *data/b c\n{MD5}  data/here\n",
            "manifest-sha256.txt": f"{sha} data/b c\n{sha} ./data/a\n",
            "manifest-sha384.txt": "no digest that is known\n",
        },
    )
    assert bag_lines(bag) == [
        {"url": A, "name": "data/a", "size": 5, "md5": MD5, "sha256": sha},
        {"url": B, "name": "data/b c", "md5": MD5, "sha256": sha},
    ]


@pytest.mark.parametrize(
    ("version", "name"), [("1.0", "data/\r\n%41%"), ("0.97", "data/\r\n%41%25")]
)
def test_names_are_decoded_as_the_version_says(version: str, name: str, tmp_path: Path) -> None:
    escaped = "data/%0D%0a%41%25"
    bag = bag_of(
        tmp_path / "bag",
        **{
            "bagit.txt": f"BagIt-Version: {version}\nTag-File-Character-Encoding: UTF-8\n",
            "fetch.txt": f"{A} - {escaped}\n",
            "manifest-md5.txt": f"{MD5}  {escaped}\n",
        },
    )
    assert [line["name"] for line in bag_lines(bag)] == [name]


def test_tag_files_have_the_encoding_that_the_bag_says(tmp_path: Path) -> None:
    bag = bag_of(tmp_path / "bag")
    tags = "BagIt-Version: 1.0\nTag-File-Character-Encoding: ISO-8859-1\n"
    (bag / "bagit.txt").write_text(tags)
    (bag / "fetch.txt").write_bytes(f"{A} - data/é\n".encode("latin-1"))
    (bag / "manifest-md5.txt").write_bytes(f"{MD5}  data/é\n".encode("latin-1"))
    assert [line["name"] for line in bag_lines(bag)] == ["data/é"]


# bagit-python passes flags to re.sub() as a count (in _decode_filename).
@pytest.mark.filterwarnings("ignore:'count' is passed as positional:DeprecationWarning")
def test_a_bag_that_bagit_made_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "bag"
    folder.mkdir()
    (folder / "a%b é.txt").write_text("hello\n")
    bag = bagit.make_bag(str(folder), checksums=["md5", "sha512"])
    (name,) = bag.payload_files()
    size = os.path.getsize(folder / name)
    (folder / "fetch.txt").write_text(f"{A} {size} {name}\n")
    (line,) = bag_lines(folder)
    assert (line["name"], line["size"], line["md5"]) == (name, 6, bag.entries[name]["md5"])
    assert line["sha512"] == bag.entries[name]["sha512"]


@pytest.mark.parametrize(
    ("fetch", "manifest", "problem"),
    [
        (f"{A} 5 data/a\n", f"{MD5}  data/b\n", "data/a of fetch.txt is in no manifest"),
        (f"{A} five data/a\n", f"{MD5}  data/a\n", "fetch.txt: line 1 is not URL LENGTH NAME"),
        (f"\n{A}\n", f"{MD5}  data/a\n", "fetch.txt: line 2 is not URL LENGTH NAME"),
        (f"{A} 5 data/a\n", "-  data/a\n", "manifest-md5.txt: line 1 is not DIGEST NAME"),
        (f"{A} 5 data/\\xe9\n", "\udce9", "it is not text in UTF-8"),
    ],
)
def test_a_bag_that_can_not_be_verified_is_refused(
    fetch: str, manifest: str, problem: str, tmp_path: Path
) -> None:
    bag = bag_of(tmp_path / "bag", **{"fetch.txt": fetch})
    (bag / "manifest-md5.txt").write_bytes(manifest.encode("utf-8", "surrogateescape"))
    with pytest.raises(Refused, match=problem):
        sent(bag=bag)


def test_a_folder_without_a_bag_or_fetch_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotDone, match="is no bag"):
        sent(bag=tmp_path)
    with pytest.raises(NotDone, match="fetch"):
        sent(bag=bag_of(tmp_path / "bag"))
