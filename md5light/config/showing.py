"""A configuration as people may see it: as an INI file, with secrets masked."""

from __future__ import annotations

import dataclasses
import re

from md5light.config.keys import SECTIONS, Config
from md5light.config.values import written

#: what is shown in a secret's place
MASK = "********"


def show(config: Config) -> str:
    """Write `config` as an INI file, with secrets masked."""
    lines = []
    for name, section in SECTIONS.items():
        lines.append(f"[{name}]")
        for field in dataclasses.fields(section):
            value = getattr(getattr(config, name), field.name)
            shown = MASK if field.metadata["secret"] and value else masked(written(value))
            lines.append(f"{field.name} = {shown}".rstrip())
        lines.append("")
    return "\n".join(lines[:-1])


def masked(value: str) -> str:
    """Hide the password of a URL."""
    value = re.sub(r"(://[^:@/]*:).*@", rf"\g<1>{MASK}@", value)
    return re.sub(r"(?i)(password=)[^&\s]+", rf"\g<1>{MASK}", value)
