"""Recipients: which addresses a submission may name."""

from __future__ import annotations

import re

from md5light.errors import Refused
from md5light.mailbox import PLAIN_ADDRESS

#: the domains of [smtp] local_domains: names without a dot (RFC 3490 section 3.1 has four kinds of
#: dots), and the local ones of RFC 6761 and RFC 6762
LOCAL_DOMAIN = re.compile(r"@([^.。．｡@]+|[^@]+[.。．｡](local|localhost|test))$", re.IGNORECASE)

#: a path in SMTP has at most 256 octets with its angle brackets (RFC 5321 section 4.5.3.1.3)
MAX_ADDRESS_LENGTH = 254


def check_address(text: str, *, local_domains: bool) -> str:
    """Return the address in `text` with its domain in lower-case ASCII (IDNA).

    Raises Refused, whose sentence does not repeat the address. It makes no look-up: only a delivery
    shows whether the domain accepts mail.
    """
    if len(text) > MAX_ADDRESS_LENGTH:
        raise Refused(
            "invalid_email", f"The address must have at most {MAX_ADDRESS_LENGTH} characters."
        )
    if not LOCAL_DOMAIN.search(text):
        return _checked(text)
    if not local_domains:
        problem = "The address must not be in a local domain; see [smtp] local_domains."
        raise Refused("invalid_email", problem)
    # email_validator always rejects local domains: show it the name inside a public one.
    return _checked(f"{text}.example").removesuffix(".example")


def _checked(text: str) -> str:
    # Imported here because it takes 1 MiB and 60 ms, and only submissions with an address need it.
    import email_validator

    try:
        # A local part outside ASCII needs SMTPUTF8 (RFC 6531) at every server on the way; if one
        # lacks it, the mail can't be delivered at all.
        valid = email_validator.validate_email(
            text, check_deliverability=False, allow_smtputf8=False
        )
    except email_validator.EmailNotValidError:
        valid = None
    address = valid and valid.ascii_email
    if not address or not PLAIN_ADDRESS.fullmatch(address):
        problem = "The address must be one such as name@example.org, in ASCII before the @."
        raise Refused("invalid_email", problem)
    return address
