"""What tests of the set-up share, so that an environment takes half the time.

Nothing is downloaded: pip finds the packages of this interpreter, all but md5light. As pip is among
them, an environment needs none of its own, whose unpacking takes longer than all else.
"""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

#: this interpreter, but for what it makes of `-m venv`
PYTHON = f"""#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
    shift 2
    set -- -m venv --without-pip "$@"
fi
exec "{sys.executable}" "$@"
"""


@dataclass(frozen=True)
class Prepared:
    packages: Path
    python: Path

    @property
    def variables(self) -> dict[str, str]:
        """What scripts/venv and scripts/install go by."""
        return {"PYTHON": str(self.python), "PYTHONPATH": str(self.packages)}


def prepare(folder: Path) -> Prepared:
    """Make in `folder` what all share."""
    prepared = Prepared(folder / "packages", folder / "python3")
    prepared.packages.mkdir(parents=True)
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if "md5light" not in package.name:
            (prepared.packages / package.name).symlink_to(package)
    prepared.python.write_text(PYTHON)
    prepared.python.chmod(0o755)
    return prepared
