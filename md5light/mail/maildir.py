"""Stores mails in a Maildir (https://cr.yp.to/proto/maildir.html) if no server is configured."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

from md5light.errors import OperatorFailure
from md5light.logs import Log
from md5light.owner import give_to_owner

log = Log(__name__)

#: part of the file names of this program: it removes no file of another program
OWN = "md5light-"

#: a file in tmp/ that is older than this many seconds was left by a crash (maildir(5))
STALE_SECONDS = 36 * 3600


class Maildir:
    """A Maildir that only its owner can read; the first mail creates it."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def deliver(
        self,
        message: EmailMessage,
        recipient: str,  # noqa: ARG002 - all recipients share the Maildir
        on_step: Callable[[str], object],
    ) -> None:
        """Store `message`; it is on the disk when this returns."""
        on_step("maildir")
        data = message.as_bytes(policy=message.policy.clone(linesep="\n"))
        try:
            self._make()
            self._remove_stale(time.time())
            kept = self._keep(data)
        except OSError as error:
            problem = f"The mail could not be written: {error.strerror}; see [smtp] maildir."
            raise OperatorFailure("not_kept", problem) from None
        log.info("mail_kept", path=kept)

    def close(self) -> None:
        """Do nothing: nothing is open between mails."""

    def stop(self) -> None:
        """Do nothing: a delivery never waits."""

    def _make(self) -> None:
        """Create missing folders, each with the owner of its parent."""
        for name in ("tmp", "new", "cur"):
            missing = [self._path / name, *(self._path / name).parents]
            for folder in reversed([folder for folder in missing if not folder.exists()]):
                folder.mkdir(mode=0o700, exist_ok=True)  # another process may make it, too
                with _opened(folder, os.O_DIRECTORY | os.O_NOFOLLOW) as descriptor:
                    give_to_owner(descriptor, folder.parent)
                _sync(folder.parent)

    def _remove_stale(self, now: float) -> None:
        """Remove files that a crash has left in tmp/."""
        for file in (self._path / "tmp").glob(f"*.{OWN}*"):
            with contextlib.suppress(FileNotFoundError):  # another process may remove it, too
                if file.stat().st_mtime < now - STALE_SECONDS:
                    file.unlink()

    def _keep(self, data: bytes) -> Path:
        """Write to tmp/, then move to new/: a mail reader never sees an incomplete mail."""
        host = socket.gethostname().replace("/", r"\057").replace(":", r"\072")
        name = f"{int(time.time())}.{OWN}{uuid.uuid4().hex}.{host}"
        unfinished, kept = self._path / "tmp" / name, self._path / "new" / name
        try:
            with _opened(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
                give_to_owner(descriptor, unfinished.parent)
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(data)
                os.fsync(descriptor)
            unfinished.rename(kept)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _sync(kept.parent)
        return kept


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, mode=0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """Make the file names in `folder` durable."""
    with _opened(folder, os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)
