"""Keeping mails in a Maildir, where no mail server is configured."""

from __future__ import annotations

import mailbox
import os
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

from md5light.errors import TemporaryFailure
from md5light.logs import Log

log = Log(__name__)


class Maildir:
    """A Maildir that mail readers can open; it is made at the first mail, for its owner's eyes alone."""

    #: there is no server whose words could be told
    answer = ""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def steps(self, message: EmailMessage, recipient: str) -> Iterator[str]:  # noqa: ARG002
        """Keep `message`, on the disk when this ends; names its one step before it is taken."""
        yield "maildir"
        try:
            kept = self._keep(message.as_bytes(policy=message.policy.clone(linesep="\n")))
        except (OSError, mailbox.Error):
            problem = "The mail could not be written to the Maildir; [smtp] maildir names it."
            raise TemporaryFailure("not_kept", problem) from None
        log.info("mail_kept", path=kept)

    def close(self) -> None:
        """Do nothing: nothing is kept open."""

    def stop(self) -> None:
        """Do nothing: nothing is waited for."""

    def _keep(self, data: bytes) -> Path:
        # Made here and not by mailbox, which fails where two processes do it at the same moment.
        for folder in (self._path, self._path / "tmp", self._path / "new", self._path / "cur"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = mailbox.Maildir(self._path, create=False).add(data)
        _sync(self._path / "new")  # mailbox has synced the file, not its name
        return self._path / "new" / key


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
