"""BagIt bags (RFC 8493): the entries of fetch.txt with their digests in the manifests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from md5light.errors import NotDone, Refused
from md5light.finding import ALGORITHMS
from md5light.text import visible

_LINE_ENDS = re.compile("\r\n|\r|\n")


def lines(folder: str) -> Iterator[bytes]:
    """Yield the entries of fetch.txt as a list in the format `ndjson`.

    Raises NotDone if the folder is no bag, Refused if an entry can't be verified.
    """
    bag = _Bag(Path(folder))
    records = list(bag.fetched())
    expected = bag.digests({record["name"] for record in records})
    for record in records:
        digests = expected.get(record["name"])
        if not digests:
            name = visible(record["name"])
            raise Refused("invalid_bag", f"{folder}: {name} of fetch.txt is in no manifest")
        yield json.dumps({**record, **digests}).encode() + b"\n"


class _Bag:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        declaration = folder / "bagit.txt"
        if not declaration.is_file():
            raise NotDone(f"{folder} is no bag: it has no bagit.txt")
        tags = dict(re.findall(r"^([^:\r\n]+?)\s*:\s*(\S+)", _text(declaration, "utf-8"), re.M))
        self._encoding = tags.get("Tag-File-Character-Encoding", "UTF-8")
        # Before version 1.0 a percent sign stood for itself.
        self._escape = re.compile(
            "%0[AD]" if tags.get("BagIt-Version", "1.0").startswith("0.") else "%(?:0[AD]|25)", re.I
        )

    def fetched(self) -> Iterator[dict[str, Any]]:
        """Yield URL, name and size of each entry."""
        for number, line in self._lines("fetch.txt"):
            match = re.fullmatch(r"(\S+)[ \t]+([0-9]{1,19}|-)[ \t]+(.+)", line)
            if not match:
                raise self._wrong("fetch.txt", number, "URL LENGTH NAME")
            url, length, name = match.groups()
            size = {} if length == "-" else {"size": int(length)}
            yield {"url": url, "name": self._name(name), **size}

    def digests(self, names: set[str]) -> dict[str, dict[str, str]]:
        """Return the manifests' digests for `names`, by algorithm."""
        found: dict[str, dict[str, str]] = {}
        for algorithm in ALGORITHMS:
            manifest = f"manifest-{algorithm}.txt"
            for number, line in self._lines(manifest, optional=True):
                match = re.fullmatch(r"([0-9A-Fa-f]+)[ \t]+\*?(.+)", line)
                if not match:
                    raise self._wrong(manifest, number, "DIGEST NAME")
                if (name := self._name(match[2])) in names:
                    found.setdefault(name, {})[algorithm] = match[1]
        return found

    def _wrong(self, name: str, number: int, form: str) -> Refused:
        return Refused("invalid_bag", f"{self._folder / name}: line {number} is not {form}")

    def _lines(self, name: str, *, optional: bool = False) -> Iterator[tuple[int, str]]:
        path = self._folder / name
        if optional and not path.exists():
            return
        for number, line in enumerate(_LINE_ENDS.split(_text(path, self._encoding)), 1):
            if line.strip():
                yield number, line

    def _name(self, escaped: str) -> str:
        """Percent-decode CR, LF and, since version 1.0, `%`, which must be encoded in names."""
        name = self._escape.sub(lambda found: chr(int(found[0][1:], 16)), escaped)
        return name.removeprefix("./")


def _text(path: Path, encoding: str) -> str:
    try:
        return path.read_bytes().decode(encoding).removeprefix("\ufeff")
    except OSError as error:
        raise NotDone(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, LookupError):
        raise Refused("invalid_bag", f"{path}: it is not text in {encoding}") from None
