"""Tokens: they permit requests, and their names identify clients.

[server] tokens_file has a line for each token: its name, a colon, and the SHA-256 of the token in
hexadecimal. A client sends the token as a bearer token (RFC 6750), or as the password of HTTP Basic
with the token's name as the user (RFC 7617).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import threading
import time
import unicodedata
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from md5light.config import Config
from md5light.errors import ConfigError
from md5light.job import BEARER
from md5light.logs import Log, Outage
from md5light.subscriber import subscriber
from md5light.web.answers import RETRY_AFTER_SECONDS, Problem

log = Log(__name__)

#: the challenge of a 401, which makes browsers ask for a name and a password
CHALLENGE = 'Basic realm="md5light"'

#: a token's name: one word without a colon that does not begin a comment
NAME = re.compile(r"[^\s:#][^\s:]{0,63}")

LINE = re.compile(rf"({NAME.pattern}):([0-9A-Fa-f]{{64}})")

#: after so many wrong tokens within `WINDOW_SECONDS` an address has to wait
MAX_FAILURES = 10
WINDOW_SECONDS = 60.0

#: addresses whose wrong tokens are remembered, at most
MAX_ADDRESSES = 10_000


class Token(NamedTuple):
    """One line of the file."""

    name: str
    #: SHA-256 of the token
    digest: bytes


class TokenFile:
    """The file that `tokens_file` names; it is read at each use, so a change applies at once."""

    def __init__(self, config: Config) -> None:
        self.path = Path(config.server.tokens_file)
        self._source = config.sources.get(("server", "tokens_file"), "environment")

    def read(self) -> list[Token]:
        """Return the tokens; raises ConfigError if the file is missing or malformed."""
        try:
            lines = self.path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise self.wrong(f"can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise self.wrong("is not UTF-8 text") from None
        tokens: dict[str, Token] = {}
        for number, line in enumerate(lines, start=1):
            if is_token(line):
                token = self._parsed(number, line)
                if token.name in tokens:
                    raise self.wrong(f"line {number}: the name is given twice")
                tokens[token.name] = token
        return list(tokens.values())

    def wrong(self, problem: str) -> ConfigError:
        """Return an error of one line about the file."""
        return ConfigError(f"{self._source}: [server] tokens_file = {self.path}: {problem}")

    def _parsed(self, number: int, line: str) -> Token:
        match = LINE.fullmatch(line.strip())
        if not match or not is_name(match[1]):  # the line is not shown: it may contain a token
            raise self.wrong(f"line {number}: is not NAME:SHA-256 of the token")
        return Token(match[1], bytes.fromhex(match[2]))


class Tokens:
    """Checks the tokens of requests; addresses that sent many wrong ones have to wait.

    Creating it raises ConfigError if the file can't be read. If it can't be read later, every
    request is refused.
    """

    def __init__(self, file: TokenFile, clock: Callable[[], float] = time.monotonic) -> None:
        file.read()
        self._file = file
        self._failures = _Failures(clock)
        self._outage = Outage(log, "tokens_unavailable", "tokens_available")

    def check(self, environ: dict[str, Any]) -> None:
        """Set the token's name as the request's user (REMOTE_USER); raises Problem without one.

        A request without credentials does not count as a wrong token: browsers first send none.
        """
        sent = environ.get("HTTP_AUTHORIZATION", "")
        if not sent:
            raise _unauthorized("This needs a token.")
        address = client_address(environ)
        if wait := self._failures.seconds_to_wait(address):
            message = "There were too many wrong tokens from this address."
            raise Problem(429, "too_many_failures", message, retry_after=wait)
        name = _owner(self._tokens(), *_credentials(sent))
        if name is None:
            if self._failures.add(address):
                log.warning("too_many_failures", client=address)
            raise _unauthorized("The token, or its name, is wrong.")
        environ["REMOTE_USER"] = name

    def _tokens(self) -> list[Token]:
        try:
            tokens = self._file.read()
        except ConfigError as error:
            self._outage.fail(reason=error)
            message = "The service can't read who may do this."
            raise Problem(
                503, "tokens_unavailable", message, retry_after=RETRY_AFTER_SECONDS
            ) from None
        self._outage.succeed()
        return tokens


class _Failures:
    """The times of the latest wrong tokens by address, of the addresses that failed last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._changing = threading.Lock()
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def seconds_to_wait(self, address: str) -> float:
        """Return how long this address must wait, 0 if it need not."""
        with self._changing:
            times = self._times.get(address)
            if not times or len(times) < MAX_FAILURES:
                return 0.0
            return max(0.0, times[0] + WINDOW_SECONDS - self._clock())

    def add(self, address: str) -> bool:
        """Count a wrong token; True if the address has to wait from now on."""
        with self._changing:
            times = self._times.setdefault(address, deque(maxlen=MAX_FAILURES))
            times.append(self._clock())
            self._times.move_to_end(address)
            if len(self._times) > MAX_ADDRESSES:
                self._times.popitem(last=False)
            return len(times) == MAX_FAILURES and times[0] > times[-1] - WINDOW_SECONDS


def is_name(name: str) -> bool:
    """Tell whether a token can have this name: one word of visible characters, composed (NFC)."""
    composed = unicodedata.normalize("NFC", name)
    return bool(NAME.fullmatch(name)) and name.isprintable() and composed == name


def is_token(line: str) -> bool:
    """Tell whether a line of the file is neither blank nor a comment."""
    return bool(line.strip()) and not line.lstrip().startswith("#")


def digest(token: bytes) -> bytes:
    """Return the SHA-256 for the file: tokens are random, so they need no slower hash."""
    return hashlib.sha256(token).digest()


def client_of(environ: Mapping[str, Any]) -> str:
    """Return the client that a request counts for: its token, else its address."""
    user = environ.get("REMOTE_USER")
    return f"{BEARER}{user}" if user else client_address(environ)


def client_address(environ: Mapping[str, Any]) -> str:
    """Return the IPv4 address, or the /64 of the IPv6 one, that a request came from."""
    return subscriber(str(environ["REMOTE_ADDR"]))


def _owner(tokens: list[Token], name: str | None, token: bytes) -> str | None:
    """Return the name that a token is kept under, None for a wrong one.

    It compares with every token and stops at none, so that its time tells nothing of them.
    """
    owner = None
    sent = digest(token)
    for each in tokens:
        is_same = hmac.compare_digest(each.digest, sent)
        if is_same and name in (None, each.name):
            owner = each.name
    return owner


def _credentials(header: str) -> tuple[str | None, bytes]:
    """Return the name (None with Bearer) and the token in an Authorization header.

    A malformed header yields an empty name, which no token has.
    """
    scheme, _, value = header.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return None, value.encode("latin-1")
    try:
        user, colon, password = base64.b64decode(value, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return "", b""
    if scheme.lower() != "basic" or not colon:
        return "", b""
    return _text(user), password


def _text(user: bytes) -> str:
    """Decode the user's name, which browsers send in UTF-8 and some programs in Latin-1."""
    try:
        text = user.decode()
    except UnicodeDecodeError:
        text = user.decode("latin-1")
    return unicodedata.normalize("NFC", text)


def _unauthorized(reason: str) -> Problem:
    how = "Send `Authorization: Bearer TOKEN`, or its name and the token as user and password."
    problem = Problem(401, "unauthorized", f"{reason} {how}")
    problem.headers["WWW-Authenticate"] = CHALLENGE
    return problem
