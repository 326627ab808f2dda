"""Files that a command makes as root beside those of the service."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def give_to_folders_owner(path: Path) -> None:
    """Give a file that root has just made to the owner of its folder, which the service is."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        with contextlib.suppress(PermissionError):  # root of a container or over NFS may not
            os.chown(path, folder.st_uid, folder.st_gid, follow_symlinks=False)
