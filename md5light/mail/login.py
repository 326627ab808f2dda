"""Login with a name and a password: AUTH (RFC 4954) with PLAIN (RFC 4616), LOGIN or CRAM-MD5."""

from __future__ import annotations

import base64
import hmac
import smtplib

from md5light.mail.replies import Reply


class Login:
    """A user name and a password, sent in UTF-8.

    PLAIN and LOGIN are tried before CRAM-MD5 (RFC 2195), which adds no protection to TLS; some
    servers offer it although they can't do it, since they do not store readable passwords.
    """

    def __init__(self, username: str, password: str) -> None:
        self._username = username.encode(errors="surrogateescape")
        self._password = password.encode(errors="surrogateescape")
        self._mechanisms = ["PLAIN", "LOGIN", "CRAM-MD5"]

    def run(self, smtp: smtplib.SMTP) -> Reply | None:
        """Log in with the first offered mechanism that the server accepts.

        Returns the last reply, None when no mechanism is offered. After a mechanism at which the
        connection broke, the next call tries it last: some servers hang up at one of those that
        they offer.
        """
        reply = None
        offered = smtp.esmtp_features.get("auth", "").upper().split()
        for mechanism in [name for name in self._mechanisms if name in offered]:
            try:
                reply = self._try(smtp, mechanism)
            except OSError:
                self._mechanisms.remove(mechanism)
                self._mechanisms.append(mechanism)
                raise
            if reply[0] // 100 != 5:
                break
        return reply

    def _try(self, smtp: smtplib.SMTP, mechanism: str) -> Reply:
        reply = smtp.docmd("AUTH", mechanism)
        for turn in range(2 if mechanism == "LOGIN" else 1):
            if reply[0] != 334:
                break
            try:
                response = self._response(mechanism, turn, reply[1])
            except ValueError:  # the challenge is not in base64
                break
            reply = smtp.docmd(base64.b64encode(response).decode())
        return reply

    def _response(self, mechanism: str, turn: int, challenge: bytes) -> bytes:
        if mechanism == "PLAIN":
            return b"\0%b\0%b" % (self._username, self._password)
        if mechanism == "LOGIN":
            return (self._username, self._password)[turn]
        digest = hmac.new(self._password, base64.b64decode(challenge), "md5").hexdigest()
        return b"%b %b" % (self._username, digest.encode())
