"""The output of a manifest: standard output, or a file that is replaced as a whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from md5light.errors import NotDone
from md5light.lists.formats import FORMS

#: forms that a file's name implies: by its extension, or as MD5SUMS does
_NAMED_FORMS = ("csv", "md5sum", "sha1sum", "sha256sum", "sha512sum")

Fetch = Callable[[IO[bytes]], None]


def check_writable(target: str | None) -> None:
    """Raise NotDone if `target` can't be written; called before the client waits."""
    if target is None:
        return
    path = Path(target)
    place = path.resolve().parent if _is_replaced(path) else path
    if path.is_dir() or target.endswith("/"):
        raise NotDone(f"{target}: {os.strerror(errno.EISDIR)}")
    if not os.access(place, os.W_OK):
        number = errno.EACCES if place.exists() else errno.ENOENT
        raise NotDone(f"{place}: {os.strerror(number)}")


def form_for(target: str | None) -> str:
    """Return the form of a manifest that a file name implies, by default ndjson."""
    name = Path(target or "").name.lower()
    for form in _NAMED_FORMS:
        if name.endswith(FORMS[form].extension) or name == f"{form}s":
            return form
    return "ndjson"


def store(fetch: Fetch, target: str | None) -> None:
    """Let `fetch` write a file and replace `target` by it; None is standard output.

    If `fetch` fails, nothing changes. Raises NotDone if `target` can't be written.
    """
    path = Path(target) if target else None
    with _naming(target or "standard output"):
        if path and _is_replaced(path):
            _replace(fetch, path.resolve())
        else:
            _copy(fetch, path)


@contextlib.contextmanager
def _naming(target: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader ended, e.g. `| head`
        raise
    except OSError as error:
        raise NotDone(f"{target}: {error.strerror}") from None


def _copy(fetch: Fetch, path: Path | None) -> None:
    """Write to a device, a pipe or standard output what `fetch` wrote completely."""
    with tempfile.TemporaryFile() as file:
        fetch(file)
        file.seek(0)
        with path.open("wb") if path else contextlib.nullcontext(sys.stdout.buffer) as place:
            shutil.copyfileobj(file, place)
            place.flush()


def _is_replaced(path: Path) -> bool:
    """Tell whether it is a file, or none yet, and not a device or a pipe."""
    return path.is_file() or not path.exists()


def _replace(fetch: Fetch, path: Path) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            fetch(file)
            os.fchmod(descriptor, _mode(path))
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _mode(path: Path) -> int:
    """Return the permissions of the file that is there, or of one that is made now."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
