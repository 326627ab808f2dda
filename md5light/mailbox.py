"""Mail addresses: the syntax that is safe in a header and in an SMTP command."""

from __future__ import annotations

import re
from typing import NamedTuple

ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
LABEL = r"[A-Za-z0-9-]+"

#: A dot-string of at most 64 characters and a domain in ASCII (RFC 5321 sections 4.1.2 and
#: 4.5.3.1.1), without `=?`, which begins an encoded word (RFC 2047): some programs decode it even
#: in an address.
PLAIN_ADDRESS = re.compile(rf"(?=.{{1,64}}@)(?!.*=\?){ATOM}(\.{ATOM})*@{LABEL}(\.{LABEL})*")

#: `Name <address>`, the name in quotes or without them
NAMED = re.compile(r'(?:"([^"<>\\]*)"|([^"<>\\]*?))\s*<(.*)>')


class Mailbox(NamedTuple):
    """A name for people, possibly empty, and an address (RFC 5322 section 3.4)."""

    name: str
    address: str


def parse(text: str) -> Mailbox:
    """Read `address` or `Name <address>`; ValueError when the address is not a plain one."""
    named = NAMED.fullmatch(text)
    mailbox = Mailbox(named[1] or named[2] or "", named[3]) if named else Mailbox("", text)
    if not PLAIN_ADDRESS.fullmatch(mailbox.address):
        raise ValueError(f"{mailbox.address!r} is not a plain mail address")
    return mailbox
