"""Classifies a mail server's replies: permanent, temporary, or a matter for the operator.

A 4xx reply is temporary and a 5xx reply permanent (RFC 5321 section 4.2.1), but a 5xx reply that is
not about this mail must not cost every mail in the outbox. So these are temporary, too, and raise
OperatorFailure:

* each 5xx reply before the recipient is named: greeting, EHLO, STARTTLS, AUTH, MAIL;
* later a 5xx reply with an enhanced status code (RFC 3463) about the sender (x.1.7, x.1.8), the
  system or its limits (x.3.x without x.3.4, x.4.5), the protocol (x.5.x) or policy (x.7.x);
* later a 5xx reply without an enhanced status code that asks for TLS or a login (530, 534, 535,
  538) or is about the protocol (500, 502, 503, 504).

Each other 5xx reply to RCPT, DATA or the message is permanent.
"""

from __future__ import annotations

import re

from md5light.errors import Failure, OperatorFailure, PermanentFailure, TemporaryFailure
from md5light.text import visible

#: status and text; smtplib's status is -1 when the line has none
Reply = tuple[int, bytes]

#: an enhanced status code at the start of a text; some servers write a # before it
ENHANCED = re.compile(rb"#?(5\.\d{1,3}\.\d{1,3})(?!\S)")

#: enhanced status codes that are about the sender, the system, its limits, the protocol or policy
OPERATOR_CODES = re.compile(r"5\.(1\.[78]|3\.(?!4$)\d+|4\.5|5\.\d+|7\.\d+)")

#: replies that ask for TLS or another login (RFC 3207 section 4, RFC 4954 section 6)
LOGIN_STATUSES = {530, 534, 535, 538}

#: replies that mean the same as the enhanced status codes x.5.x
PROTOCOL_STATUSES = {500, 502, 503, 504}

#: commands after the recipient is named: only their replies can be about this mail
ABOUT_MAIL = ("recipient", "message")


def is_good(reply: Reply) -> bool:
    return reply[0] // 100 == 2


def refusal(reply: Reply, asked: str, code: str = "refused") -> Failure:
    """Return the failure for a negative `reply`; `asked` names the command that it answers."""
    status, text = reply
    match = ENHANCED.match(text)
    enhanced = match[1].decode() if match else ""
    said = f"{status} {enhanced}".rstrip() if status > 0 else "without a code"
    kind: type[Failure] = TemporaryFailure
    if status // 100 == 5:
        operators = asked not in ABOUT_MAIL or _is_operators(status, enhanced)
        kind = OperatorFailure if operators else PermanentFailure
    return kind(
        "login_failed" if status in LOGIN_STATUSES else code,
        f"The mail server answered {said} to the {asked}.",
        detail=visible(f"{status} {text.decode('ascii', 'replace')}"),
    )


def _is_operators(status: int, enhanced: str) -> bool:
    """Tell whether a 5xx reply is about the sender, the system, limits, the protocol or policy."""
    if enhanced:
        return OPERATOR_CODES.fullmatch(enhanced) is not None
    return status in LOGIN_STATUSES | PROTOCOL_STATUSES
