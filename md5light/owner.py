"""The owner of what a command makes as root beside the files of the service."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def give_to_owner(made: Path | int, folder: Path) -> None:
    """Give what root has just made in `folder` to the owner of `folder`, as SQLite does.

    Otherwise a command that the administrator runs as root would shut the service out. `made` is a
    descriptor or, where nothing can be opened, a path.
    """
    if os.geteuid() == 0:
        owner = folder.stat()
        with contextlib.suppress(PermissionError):  # root of a container or over NFS may not
            os.chown(made, owner.st_uid, owner.st_gid, follow_symlinks=isinstance(made, int))
