"""What tests of the set-up share, so that an environment takes half the time.

Nothing is downloaded: pip finds the packages of scripts/requirements.txt among those of this
interpreter. As pip is linked beside them, an environment needs none of its own, whose unpacking
takes longer than all else.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from tests.child import ROOT

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
    locked = re.findall(r"(?m)^(\S+)==", (ROOT / "scripts/requirements.txt").read_text())
    for part in {part for name in ["pip", *locked] for part in parts(name)}:
        (prepared.packages / part.name).symlink_to(part)
    prepared.python.write_text(PYTHON)
    prepared.python.chmod(0o755)
    return prepared


def parts(package: str) -> set[Path]:
    """Return the files and folders of a package that lie in site-packages itself."""
    found = distribution(package)
    beginnings = {file.parts[0] for file in found.files or []}
    return {Path(str(found.locate_file(name))) for name in beginnings - {".."}}
