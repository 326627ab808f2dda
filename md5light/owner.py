"""The owner of files that a command creates as root in a folder of the service."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def give_to_owner(made: Path | int, folder: Path) -> None:
    """Give a file that root has just created in `folder` to the owner of `folder`, as SQLite does.

    Otherwise the service could not open files that the administrator has created as root. `made` is
    a descriptor or, for a file that can't be opened, a path.
    """
    if os.geteuid() == 0:
        owner = folder.stat()
        with contextlib.suppress(PermissionError):  # in a container or over NFS root may not
            os.chown(made, owner.st_uid, owner.st_gid, follow_symlinks=isinstance(made, int))
