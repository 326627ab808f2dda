"""Delivery through a mail server: SMTP (RFC 5321), STARTTLS (RFC 3207), login (RFC 4954)."""

from __future__ import annotations

import contextlib
import ipaddress
import smtplib
import socket
import ssl
import threading
from collections.abc import Generator, Iterator
from email.message import EmailMessage
from typing import Any

from md5light.config import SmtpConfig
from md5light.errors import Failure, PermanentFailure, Stopped, TemporaryFailure

#: a whole exchange takes at most so many times [smtp] timeout
EXCHANGE_TIMEOUTS = 4

#: seconds that a server has to say good-bye, at most; no mail depends on it
QUIT_SECONDS = 2.0

#: replies to MAIL, RCPT or DATA that ask for TLS or another login (RFC 3207 section 4, RFC 4954 section 6)
LOGIN_REPLIES = {530, 534, 535, 538}

Reply = tuple[int, bytes]


class Smtp:
    """The configured mail server, with one session kept for many mails.

    What a failure means: a 5xx reply to MAIL, RCPT or DATA is about this mail and permanent (RFC 5321 section 4.2.1).
    Everything else is temporary, also a 5xx at the greeting, EHLO, STARTTLS or login, or one that asks for a login:
    it is about the server or its configuration, which somebody will mend, and a wrong password must not cost every
    mail that is owed.
    """

    def __init__(self, config: SmtpConfig) -> None:
        self._config = config
        self._tls = _tls_context(config.ca_file)
        self._line = Line()
        self._smtp: smtplib.SMTP | None = None
        #: the server's own words where it refused, the system's where a connection failed; they may hold the address
        self.answer = ""

    def steps(self, message: EmailMessage, recipient: str) -> Iterator[str]:
        """Deliver `message`; names each step before it is taken."""
        self.answer = ""
        with self._exchange(EXCHANGE_TIMEOUTS * self._config.timeout):
            smtp = yield from self._session()
            yield "recipient"
            self._judge(smtp.rcpt(recipient), "recipient")
            yield "message"
            self._judge(_data(smtp, message), "message")

    def close(self) -> None:
        """End the kept session with QUIT."""
        if self._smtp:
            seconds = min(QUIT_SECONDS, self._config.timeout)
            with contextlib.suppress(Failure, Stopped), self._exchange(seconds):
                self._smtp.quit()
            self._drop()

    def stop(self) -> None:
        """End a running exchange, and each that follows, with Stopped; any thread may call this.

        Only a look-up of the server's name can't be ended: the system's resolver decides how long it takes.
        """
        self._line.stop()

    # --- the exchange --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _exchange(self, seconds: float) -> Iterator[None]:
        """End what is done within after `seconds`; keep the session only if it can serve another mail."""
        try:
            with self._line.limited(seconds):
                yield
        except PermanentFailure:
            raise  # about this mail, not about the session
        except OSError as error:
            self._drop()
            if isinstance(error, ConnectionError):
                self.answer = error.strerror or ""  # such as: Connection refused
            raise self._reason(error) from None
        except BaseException:
            self._drop()
            raise

    def _session(self) -> Generator[str, None, smtplib.SMTP]:
        """Return a session that has accepted the sender: the kept one if it still does, else a new one."""
        if self._smtp:
            with contextlib.suppress(OSError):
                # RSET forgets a mail that was refused half-way.
                if self._smtp.rset()[0] == self._smtp.mail(self._config.sender_address)[0] == 250:
                    return self._smtp
            self._drop()
        smtp = yield from self._open()
        yield "sender"
        self._judge(smtp.mail(self._config.sender_address), "sender")
        return smtp

    def _open(self) -> Generator[str, None, smtplib.SMTP]:
        yield "name"
        addresses = self._look_up()
        yield "connection"
        connection = self._connect(addresses)
        self._smtp = smtp = smtplib.SMTP(local_hostname=_own_name(connection))
        smtp.sock = connection
        if self._config.security == "tls":
            yield "TLS"
            self._start_tls(smtp, connection)
        yield "greeting"
        self._require(smtp.getreply(), "connection")
        self._require(smtp.ehlo(), "EHLO")
        if self._config.security == "starttls":
            yield "TLS"
            self._require(smtp.docmd("STARTTLS"), "STARTTLS", "tls_failed")
            self._start_tls(smtp, connection)
            self._require(
                smtp.ehlo(), "EHLO"
            )  # what was said before TLS doesn't count (RFC 3207 section 4.2)
        if self._config.username:
            yield "login"
            self._log_in(smtp, connection)
        return smtp

    def _drop(self) -> None:
        if self._smtp:
            self._smtp.close()
            self._smtp = None

    # --- the steps of opening a session --------------------------------------------------------------------

    def _look_up(self) -> list[Any]:
        try:
            return socket.getaddrinfo(self._config.host, self._config.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # the latter where the name isn't one in any language
            problem = "The name of the mail server can't be looked up; [smtp] host names it."
            raise TemporaryFailure("name_not_found", problem) from None

    def _connect(self, addresses: list[Any]) -> socket.socket:
        """Connect to the first address that answers."""
        failure = OSError()
        for family, kind, protocol, _, address in addresses:
            try:
                return self._connect_to(family, kind, protocol, address)
            except OSError as error:
                failure = error
        raise failure

    def _connect_to(self, family: int, kind: int, protocol: int, address: Any) -> socket.socket:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(self._config.timeout)
            self._line.hold(connection)
            connection.connect(address)
            self._line.hold(
                connection
            )  # again: an end that came just before connect had nothing to shut
        except BaseException:
            connection.close()
            raise
        return connection

    def _start_tls(self, smtp: smtplib.SMTP, connection: socket.socket) -> None:
        # The handshake comes apart so that the deadline can end it.
        tls = self._tls.wrap_socket(
            connection, server_hostname=self._config.host, do_handshake_on_connect=False
        )
        smtp.sock = tls
        smtp.file = (
            None  # with it goes whatever was put in behind the reply to STARTTLS, unencrypted
        )
        self._line.hold(tls)
        tls.do_handshake()

    def _log_in(self, smtp: smtplib.SMTP, connection: socket.socket) -> None:
        if self._config.security == "none" and not _is_loopback(connection):
            raise TemporaryFailure(
                "login_failed",
                "The password is not sent without TLS; [smtp] security governs this.",
            )
        try:
            smtp.login(self._config.username, self._config.password)
        except smtplib.SMTPServerDisconnected:
            raise
        except smtplib.SMTPAuthenticationError as error:
            raise self._refused(_reply(error), "login", "login_failed") from None
        except smtplib.SMTPException:
            raise TemporaryFailure(
                "login_failed", "The mail server offers no login with a password."
            ) from None
        except ValueError:
            raise TemporaryFailure(
                "login_failed", "User name and password must be in ASCII."
            ) from None

    # --- what an answer means ------------------------------------------------------------------------------

    def _require(self, reply: Reply, step: str, code: str = "refused") -> None:
        """Insist on a good reply while a session is opened."""
        if reply[0] // 100 != 2:
            raise self._refused(reply, step, code)

    def _judge(self, reply: Reply, step: str) -> None:
        """Insist on a good reply to a part of a mail."""
        if reply[0] in LOGIN_REPLIES:
            raise self._refused(reply, step, "login_failed")
        if reply[0] // 100 != 2:
            raise self._refused(reply, step, "refused", permanent=reply[0] // 100 == 5)

    def _refused(self, reply: Reply, step: str, code: str, *, permanent: bool = False) -> Failure:
        status, text = reply
        words = text.decode("ascii", "replace")
        self.answer = "".join(c if c.isprintable() else " " for c in f"{status} {words}")
        failure = PermanentFailure if permanent else TemporaryFailure
        said = status if status > 0 else "without a code"
        return failure(code, f"The mail server answered {said} to the {step}.")

    def _reason(self, error: OSError) -> Failure | Stopped:
        if self._line.stopped:
            return Stopped("the delivery was stopped")
        if self._line.late:
            return TemporaryFailure(
                "timed_out", "The mail server took too long for the whole exchange."
            )
        if isinstance(error, TimeoutError) or isinstance(
            error.__context__, TimeoutError
        ):  # smtplib hides it there
            return TemporaryFailure("timed_out", "The mail server was silent for too long.")
        if isinstance(error, ssl.SSLCertVerificationError):
            problem = f"The certificate of the mail server is not trusted: {error.verify_message.rstrip('.')}."
            return TemporaryFailure("tls_failed", problem)
        if isinstance(error, ssl.SSLError):
            return TemporaryFailure("tls_failed", "The mail server does not speak TLS with us.")
        return TemporaryFailure(
            "connection_failed", "The mail server could not be reached, or the connection broke."
        )


def unreachable(config: SmtpConfig, seconds: float) -> str:
    """Tell what keeps a connection from the mail server, after `seconds` at most; empty: nothing does.

    No word is said to it.
    """
    problem = "The mail server does not answer."

    def connect() -> None:
        nonlocal problem
        try:
            socket.create_connection((config.host, config.port), seconds).close()
            problem = ""
        except (OSError, UnicodeError) as error:
            problem = f"{getattr(error, 'strerror', None) or error}"

    # A thread of its own: how long the look-up of a name takes is for the system's resolver to decide.
    connecting = threading.Thread(target=connect, daemon=True)
    connecting.start()
    connecting.join(seconds)
    return problem


class Line:
    """The connection in use, which a deadline or another thread can end at any moment.

    Shutting a socket down ends what another thread waits for on it; closing it would not, and might hit a new
    socket with the same number.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        #: ended for good by `stop`
        self.stopped = False
        #: ended by the deadline
        self.late = False

    @contextlib.contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """End the connection if what is done within takes longer."""
        self.late = False
        timer = threading.Timer(seconds, self._expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # or a timer that fires just now would end the next exchange

    def hold(self, connection: socket.socket) -> None:
        """Make `connection` the one that is ended; an OSError if the end has come already."""
        with self._lock:
            self._connection = connection
            if self.stopped or self.late:
                raise ConnectionAbortedError

    def stop(self) -> None:
        """End the connection, and each that follows."""
        with self._lock:
            self.stopped = True
            self._shut()

    def _expire(self) -> None:
        with self._lock:
            self.late = True
            self._shut()

    def _shut(self) -> None:
        if self._connection:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own shutdown: it turns TLS off under the thread that is using it.
                socket.socket.shutdown(self._connection, socket.SHUT_RDWR)


def _tls_context(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def _is_loopback(connection: socket.socket) -> bool:
    return ipaddress.ip_address(connection.getpeername()[0]).is_loopback


def _own_name(connection: socket.socket) -> str:
    """Name this host for EHLO: by its full name, else by its address (RFC 5321 section 4.1.4)."""
    name = socket.gethostname()  # not getfqdn, which asks DNS and may hang
    if "." in name:
        return name
    address = connection.getsockname()[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _data(smtp: smtplib.SMTP, message: EmailMessage) -> Reply:
    try:
        return smtp.data(message.as_bytes(policy=message.policy.clone(linesep="\r\n")))
    except smtplib.SMTPDataError as error:  # the server didn't want to hear it
        return _reply(error)


def _reply(error: smtplib.SMTPResponseException) -> Reply:
    text = error.smtp_error
    return error.smtp_code, text.encode() if isinstance(text, str) else text
