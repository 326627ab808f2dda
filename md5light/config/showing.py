"""Shows a configuration as an INI file, with secrets masked."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from md5light.config.keys import SECTIONS, Config
from md5light.config.values import written

#: replaces a secret
MASK = "********"

#: a key with one of these in its name may be a secret
SECRET_WORDS = ("pass", "pw", "secret", "token")

#: matches text that may contain a password: a whole connection string, and a URL after its scheme
#: if it has a user, a parameter, or a port that is not a number
UNREADABLE = re.compile(r"^\w+\s*=.*|(?<=://)(?=.*[@=]|[^/?#]*:(?!\d*(?:[/?#,]|$))).*")


class Shown(NamedTuple):
    """One value in the form in which it is shown."""

    section: str
    key: str
    value: str
    #: the file or the variable that sets it; empty: the default
    source: str


def shown(config: Config) -> Iterator[Shown]:
    """Yield all values in the order of the sections, with secrets masked."""
    for name, section in SECTIONS.items():
        for field in dataclasses.fields(section):
            value = getattr(getattr(config, name), field.name)
            text = MASK if field.metadata["secret"] and value else masked(written(value))
            yield Shown(name, field.name, text, config.sources.get((name, field.name), ""))


def show(config: Config) -> str:
    """Write `config` as an INI file, with secrets masked, and with the source of each set value."""
    lines = ["# A value without a source is the default."]
    for section, values in itertools.groupby(shown(config), key=lambda value: value.section):
        lines += ["", f"[{section}]"]
        for value in values:
            lines += [f"# from {value.source}"] * bool(value.source)
            lines.append(f"{value.key} = {value.value}".rstrip())
    return "\n".join(lines)


def masked(value: str) -> str:
    """Hide the password of a valid URL."""
    value = re.sub(r"(://[^:@/]*:).*@", rf"\g<1>{MASK}@", value)
    return re.sub(r"((?:password|secret|scram_\w+_key)=)[^&\s]+", rf"\g<1>{MASK}", value)


def quoted(key: str, value: str) -> str:
    """Show a wrong value on one line, without anything that may be a secret."""
    # It looks at the name, not at the key's description: an unknown key may be a misspelt password.
    secret = difflib.get_close_matches(key, ["password"]) or any(
        word in key for word in SECRET_WORDS
    )
    if secret and not key.endswith("file"):
        return MASK
    return UNREADABLE.sub(MASK, " ".join(value.split()))
