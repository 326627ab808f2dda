"""Mails kept in a Maildir."""

from __future__ import annotations

import errno
import logging
import mailbox
import os
import resource
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from md5light.config import SmtpConfig
from md5light.errors import OperatorFailure
from md5light.mail.mailer import Mailer
from tests.mails import JOB, MESSAGE, RECIPIENT

#: seconds
HOUR = 3600


def keep(folder: Path) -> None:
    Mailer(SmtpConfig(maildir=str(folder))).send(MESSAGE, RECIPIENT)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Make writes fail that would make a file larger than `size`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores SIGXFSZ
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_mails_are_kept_in_a_maildir_that_others_can_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "deep" / "mails"
    mailer = Mailer(SmtpConfig(maildir=str(folder)))
    mailer.send(MESSAGE, RECIPIENT)
    mailer.send(MESSAGE, RECIPIENT)
    mailer.close()
    kept = list(mailbox.Maildir(folder, create=False))
    assert [mail["Message-ID"] for mail in kept] == [MESSAGE["Message-ID"]] * 2
    assert [mail["To"] for mail in kept] == [RECIPIENT] * 2
    assert JOB.url.encode() in kept[0].get_payload(decode=True)
    assert sorted(_logged_paths(caplog)) == sorted(str(file) for file in (folder / "new").iterdir())
    assert list((folder / "tmp").iterdir()) == []
    assert RECIPIENT not in str([vars(record) for record in caplog.records])


def _logged_paths(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        str(vars(record)["fields"]["path"])
        for record in caplog.records
        if record.getMessage() == "mail_kept"
    ]


def test_a_maildir_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    keep(folder)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())} == {0o700}
    (mail,) = (folder / "new").iterdir()
    assert stat.S_IMODE(mail.stat().st_mode) == 0o600


@pytest.mark.parametrize("made_before", ["", "data", "data/mails", "data/mails/new"])
def test_all_that_root_makes_belongs_to_the_owner_of_its_folder(
    made_before: str, tmp_path: Path
) -> None:
    """Without root's rights the owner is the one who runs this, and stays so."""
    owner = (4321, 8765) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(tmp_path, *owner)
    for folder in reversed([Path(made_before), *Path(made_before).parents]):
        (tmp_path / folder).mkdir(exist_ok=True)
        os.chown(tmp_path / folder, *owner)
    keep(tmp_path / "data" / "mails")
    made = list(tmp_path.rglob("*"))
    assert {path.name for path in made} >= {"data", "mails", "tmp", "new", "cur"}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {owner}


def test_many_mailers_share_a_maildir_from_the_first_mail_on(tmp_path: Path) -> None:
    def send() -> None:
        mailer = Mailer(SmtpConfig(maildir=str(tmp_path / "mails")))
        for _ in range(10):
            mailer.send(MESSAGE, RECIPIENT)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mailbox.Maildir(tmp_path / "mails", create=False)) == 80


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_maildir_that_cannot_be_written_is_the_operators_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mailer = Mailer(SmtpConfig(maildir=str(tmp_path / "file" / "mails")))
    steps: list[str] = []
    with pytest.raises(OperatorFailure, match="Not a directory") as failure:
        mailer.send(MESSAGE, RECIPIENT, steps.append)
    assert failure.value.code == "not_kept"
    assert steps == ["address", "maildir"]


@pytest.mark.parametrize("size", [0, 1, len(MESSAGE.as_bytes()) - 50])
def test_a_mail_that_does_not_fit_leaves_no_file(size: int, tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    for _ in range(3):
        with file_size_limit(size), pytest.raises(OperatorFailure) as failure:
            keep(folder)
        assert os.strerror(errno.EFBIG) in failure.value.message
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    keep(folder)
    assert len(list((folder / "new").iterdir())) == 1


def test_what_a_crash_has_left_is_removed_after_36_hours(tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    keep(folder)
    (mail,) = (folder / "new").iterdir()
    ages = {"old": 37, "new": 35}
    for name, hours in ages.items():
        left = folder / "tmp" / f"{name}.{mail.name.partition('.')[2]}"
        foreign = folder / "tmp" / f"{name}.V802I1.host"
        for file in (left, foreign):
            file.write_bytes(b"half")
            os.utime(file, (time.time() - hours * HOUR,) * 2)
    keep(folder)
    left_over = sorted(path.name.partition(".")[0] for path in (folder / "tmp").iterdir())
    assert left_over == ["new", "new", "old"]
    assert (folder / "tmp" / "old.V802I1.host").exists()
    assert len(list((folder / "new").iterdir())) == 2
