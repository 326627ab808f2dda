"""Delivery through a mail server: SMTP (RFC 5321), STARTTLS (RFC 3207)."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from email.message import EmailMessage

from md5light import dial, tls
from md5light.config import SmtpConfig
from md5light.deadlines import Deadlines
from md5light.errors import Failure, OperatorFailure, PermanentFailure, Stopped, TemporaryFailure
from md5light.interrupt import Interrupt
from md5light.lookups import Lookups
from md5light.mail.login import Login
from md5light.mail.replies import Reply, is_good, refusal

#: a whole exchange takes at most this many times [smtp] timeout
EXCHANGE_TIMEOUTS = 4

#: seconds to wait for the reply to QUIT, at most; no mail depends on it
QUIT_SECONDS = 2.0

#: look-ups of the server's name at once; more than one only while name servers do not answer
MAX_LOOKUPS = 4

#: names of hosts that mail servers accept in EHLO
HOST_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")

#: hints for a server that is silent or does not speak TLS on its port
WANTS_TLS = " Port 465 usually wants [smtp] security = tls."
WANTS_STARTTLS = " Ports 587 and 25 usually want [smtp] security = starttls."


class Smtp:
    """The configured mail server, with one session for many mails.

    Use it from one thread, except `stop`. The module `replies` classifies refusals; every other
    failure is temporary.
    """

    def __init__(self, config: SmtpConfig) -> None:
        self._config = config
        self._login = Login(config.username, config.password)
        self._lookups = Lookups(MAX_LOOKUPS)
        self._tls = tls.Client(config.ca_file)
        self._deadlines = Deadlines(EXCHANGE_TIMEOUTS * config.timeout)
        self._smtp: smtplib.SMTP | None = None
        self._interrupt = Interrupt()
        self._stopped = False
        self._step = ""
        self._on_step: Callable[[str], object] = lambda _: None

    def deliver(
        self, message: EmailMessage, recipient: str, on_step: Callable[[str], object]
    ) -> None:
        """Deliver `message` to `recipient`; return when the server has accepted it."""
        self._on_step = on_step
        with self._exchange():
            smtp = self._session()
            self._begin("recipient")
            _require(smtp.rcpt(recipient), "recipient")
            self._begin("message")
            _require(_data(smtp, message), "message")

    def close(self) -> None:
        """End the kept session with QUIT."""
        if self._smtp and self._smtp.sock:
            with contextlib.suppress(OSError):
                self._smtp.sock.settimeout(min(QUIT_SECONDS, self._config.timeout))
                self._smtp.putcmd("QUIT")
                self._smtp.sock.recv(1024)  # one read: more could take endlessly many bytes
        self._drop()

    def stop(self) -> None:
        """Make a running exchange, and each later one, raise Stopped."""
        self._stopped = True  # first: an exchange that starts now either sees it or is ended
        self._interrupt.end(_stopped())
        self._deadlines.close()

    # --- the exchange -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        """Bound the time of an exchange; keep the session only if it can serve another mail."""
        self._interrupt = interrupt = Interrupt()
        if self._stopped:
            raise _stopped()
        late = TemporaryFailure("timed_out", "The mail server took too long for all steps.")
        try:
            with self._deadlines.watch(lambda: interrupt.end(late)):
                yield
        except PermanentFailure:
            raise  # the mail was refused, but the session can be used again
        except OSError as error:
            self._drop()
            interrupt.check()
            raise self._broken(error) from None
        except BaseException:
            self._drop()
            raise

    def _begin(self, step: str) -> None:
        self._step = step
        self._on_step(step)

    def _session(self) -> smtplib.SMTP:
        """Return a session that has accepted the sender: the open one if it works, or a new one."""
        sender = self._config.sender_address
        if self._smtp and self._smtp.sock:
            with contextlib.suppress(OSError):
                self._interrupt.hold(self._smtp.sock)
                # RSET discards a mail that was refused half-way.
                if is_good(self._smtp.rset()) and is_good(self._smtp.mail(sender)):
                    return self._smtp
            self._drop()
        self._smtp = smtp = self._open()
        self._begin("sender")
        _require(smtp.mail(sender), "sender")
        return smtp

    def _drop(self) -> None:
        self._interrupt.hold()
        if self._smtp:
            self._smtp.close()
            self._smtp = None

    def _broken(self, error: OSError) -> TemporaryFailure:
        """Return the failure for an error of the connection."""
        # smtplib raises an error of its own in place of TimeoutError.
        if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
            code, message = "timed_out", "The mail server was silent for too long."
        else:
            code = "connection_failed"
            message = "The mail server could not be reached, or the connection broke."
        if self._step == "greeting" and self._config.security != "tls":
            message += WANTS_TLS
        return TemporaryFailure(code, message, detail=error.strerror or "")

    # --- opening a session ------------------------------------------------------------------------

    def _open(self) -> smtplib.SMTP:
        """Connect, start TLS and log in, as configured."""
        connection = self._connect(self._look_up())
        name = self._config.helo_name or _own_name(connection)
        self._smtp = smtp = smtplib.SMTP(local_hostname=name)
        smtp.sock = connection  # first, so that it is closed where it is too late to hold it
        self._interrupt.hold(connection)
        if self._config.security == "tls":
            self._begin("TLS")
            self._start_tls(smtp, connection)
        self._begin("greeting")
        _require(smtp.getreply(), "connection")
        _require(smtp.ehlo(), "EHLO")
        if self._config.security == "starttls":
            self._begin("TLS")
            _require(smtp.docmd("STARTTLS"), "STARTTLS", "tls_failed")
            self._start_tls(smtp, connection)
            # Replies from before TLS must be discarded (RFC 3207 section 4.2).
            _require(smtp.ehlo(), "EHLO")
        if self._config.username:
            self._begin("login")
            self._log_in(smtp, connection)
        return smtp

    def _look_up(self) -> list[dial.AddressInfo]:
        self._begin("name")
        return _look_up(self._config, self._lookups, self._config.timeout, self._interrupt)

    def _connect(self, addresses: list[dial.AddressInfo]) -> socket.socket:
        self._begin("connection")
        connection = dial.connect(addresses, self._config.timeout, self._interrupt)
        connection.settimeout(self._config.timeout)
        return connection

    def _start_tls(self, smtp: smtplib.SMTP, connection: socket.socket) -> None:
        smtp.file = None  # discards plain text that followed the reply to STARTTLS
        try:
            smtp.sock = self._tls.start(connection, self._config.host, self._interrupt)
        except ssl.SSLError as error:
            self._interrupt.check()
            raise self._tls_failure(error) from None

    def _tls_failure(self, error: ssl.SSLError) -> Failure:
        reason = tls.explain(error, "The mail server")
        if isinstance(error, ssl.SSLCertVerificationError):
            problem = f"The certificate of the mail server is not trusted. {reason}"
            return OperatorFailure("tls_failed", problem)
        if error.reason in tls.NOT_TLS and self._config.security == "tls":
            return OperatorFailure("tls_failed", reason + WANTS_STARTTLS)
        return TemporaryFailure("tls_failed", reason)

    def _log_in(self, smtp: smtplib.SMTP, connection: socket.socket) -> None:
        if self._config.security == "none" and not _is_loopback(connection):
            problem = "The password is not sent without TLS; see [smtp] security."
            raise OperatorFailure("login_failed", problem)
        reply = self._login.run(smtp)
        if reply is None:
            problem = "The mail server offers no login with a password; see [smtp] username."
            raise OperatorFailure("login_failed", problem)
        _require(reply, "login", "login_failed")


def unreachable(config: SmtpConfig, seconds: float) -> str:
    """Return why no connection to the mail server is possible; empty when one is.

    The look-up of its name and the connect may each take `seconds`. Nothing is sent.
    """
    interrupt = Interrupt()
    try:
        addresses = _look_up(config, Lookups(1), seconds, interrupt)
        dial.connect(addresses, seconds, interrupt).close()
    except Failure as failure:
        return failure.message
    except OSError as error:
        return error.strerror or "The mail server does not answer."
    return ""


def _look_up(
    config: SmtpConfig, lookups: Lookups, seconds: float, interrupt: Interrupt
) -> list[dial.AddressInfo]:
    """Return the addresses of the mail server."""

    def look_up() -> list[dial.AddressInfo]:
        try:
            return socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # UnicodeError: the text can't be a host name
            problem = "The name of the mail server can't be looked up; see [smtp] host."
            raise TemporaryFailure("name_not_found", problem) from None

    return lookups.run(look_up, seconds, interrupt)


def _require(reply: Reply, asked: str, code: str = "refused") -> None:
    if not is_good(reply):
        raise refusal(reply, asked, code)


def _stopped() -> Stopped:
    return Stopped("the delivery was stopped")


def _is_loopback(connection: socket.socket) -> bool:
    return ipaddress.ip_address(connection.getpeername()[0]).is_loopback


def _own_name(connection: socket.socket) -> str:
    """Return the name for EHLO: the host's full name, or its address (RFC 5321 section 4.1.4)."""
    name = socket.gethostname()  # not getfqdn, which asks DNS and may hang
    if HOST_NAME.fullmatch(name):
        return name
    address = connection.getsockname()[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _data(smtp: smtplib.SMTP, message: EmailMessage) -> Reply:
    try:
        return smtp.data(message.as_bytes(policy=message.policy.clone(linesep="\r\n")))
    except smtplib.SMTPDataError as error:  # the server refused the command
        text = error.smtp_error
        return error.smtp_code, text.encode() if isinstance(text, str) else text
