"""Mail servers on loopback for tests.

`Postbox` is a real one (aiosmtpd): it keeps what it accepts, with TLS and login as wanted.
`ScriptedPostbox` speaks the same protocol from a script, so that it can refuse, hang up, be silent
or drip at any step:

    with Postbox() as postbox:
        …  # deliver to postbox.host, postbox.port
        assert postbox.mails[0].message["Subject"] == "md5light: done"

    with ScriptedPostbox(RCPT=["451 later", "451 later"]) as postbox:   # twice, then good
    with ScriptedPostbox(MAIL=repeat("550 no")) as postbox:             # always
    with ScriptedPostbox(DATA=[HANG_UP]) as postbox:                    # once, then good
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import repeat
from pathlib import Path
from typing import Any

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

__all__ = [
    "HANG_UP",
    "SILENCE",
    "Drip",
    "Mail",
    "Postbox",
    "ScriptedPostbox",
    "certificates",
    "repeat",
]


@dataclass(frozen=True)
class Mail:
    """A mail that was accepted: its envelope and its bytes as they came."""

    sender: str
    recipients: list[str]
    data: bytes

    @property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.data, policy=policy.SMTP)
        assert isinstance(message, EmailMessage)
        return message

    @property
    def text(self) -> str:
        """The body, decoded."""
        content = self.message.get_content()
        assert isinstance(content, str)
        return content


def certificates(folder: Path, *names: str) -> tuple[ssl.SSLContext, str]:
    """Make a server's TLS context for `names`, and the file of its authority.

    Without names it is for localhost and 127.0.0.1.
    """
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
    ca_file = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return context, str(ca_file)


class Postbox:
    """A mail server that accepts everything, after a login where `login` is a user and a password.

    `starttls` and `tls` are the server's TLS contexts; a login is offered only within TLS unless
    `login_without_tls`, by `mechanisms`.
    """

    def __init__(
        self,
        *,
        starttls: ssl.SSLContext | None = None,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
        login_without_tls: bool = False,
        mechanisms: str = "PLAIN LOGIN",
        address: str = "127.0.0.1",
    ) -> None:
        self.mails: list[Mail] = []
        self._login = login
        self._controller = _Controller(
            self,
            address,
            ssl_context=tls,
            tls_context=starttls,
            authenticator=self._authenticate,
            auth_required=login is not None,
            # aiosmtpd doesn't count implicit TLS as TLS
            auth_require_tls=not (login_without_tls or tls),
            auth_exclude_mechanism={"PLAIN", "LOGIN"} - set(mechanisms.split()),
        )
        self.host, self.port = self._controller.hostname, self._controller.port

    @property
    def connections(self) -> int:
        """How many connections were made."""
        return self._controller.connections

    def __enter__(self) -> Postbox:
        self._controller.start()
        self._controller.connections = 0  # aiosmtpd makes one to see that it is there
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.hang_up()
        self._controller.stop()
        self._controller.listener.close()

    # aiosmtpd calls these by their names.
    async def handle_MAIL(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append(Mail(envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 OK"

    def _authenticate(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> AuthResult:
        given = (
            (data.login.decode(), data.password.decode())
            if isinstance(data, LoginPassword)
            else None
        )
        return AuthResult(success=given == self._login, handled=False)


class _Controller(Controller):
    """aiosmtpd's server thread, on any free port."""

    def __init__(self, postbox: Postbox, address: str, **options: Any) -> None:
        self.listener = socket.create_server((address, 0))
        self.connections = 0
        self._servers: list[Any] = []
        super().__init__(postbox, hostname=address, port=self.listener.getsockname()[1], **options)

    def factory(self) -> Any:
        self.connections += 1
        self._servers.append(super().factory())  # type: ignore[no-untyped-call]
        return self._servers[-1]

    def hang_up(self) -> None:
        """Drop the connections: from Python 3.12 on a stopping server waits for its clients."""
        asyncio.run_coroutine_threadsafe(self._hang_up(), self.loop).result(10)

    async def _hang_up(self) -> None:
        self.loop.remove_reader(self.listener)
        await asyncio.sleep(0)  # what was accepted in this turn begins in the next
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for server in self._servers:
            if server.transport:
                server.transport.abort()
        await asyncio.sleep(0)  # sockets are closed in the loop's next turn

    def _create_server(self) -> Any:
        return self.loop.create_server(
            self._factory_invoker, sock=self.listener, ssl=self.ssl_context
        )


@dataclass(frozen=True)
class Drip:
    """An answer sent one byte at a time."""

    data: bytes = b"250-" + b"x" * 8000
    seconds: float = 0.05


#: answers that are none: the connection is closed, or stays open without a word
HANG_UP = object()
SILENCE = object()

Answer = str | Drip | object

#: what a good server says at each step; RESPONSE is the answer to a challenge of AUTH, END the dot
#: after the mail
GOOD = {
    "CONNECT": "220 postbox ESMTP",
    "EHLO": "250-postbox\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN",
    "STARTTLS": "220 go ahead",
    "AUTH": "235 welcome",
    "RESPONSE": "235 welcome",
    "MAIL": "250 OK",
    "RCPT": "250 OK",
    "DATA": "354 go ahead",
    "END": "250 OK",
    "RSET": "250 OK",
    "QUIT": "221 bye",
}


class ScriptedPostbox:
    """A mail server that answers from a script: at each step its answers in turn, then good ones.

    The steps are GOOD's. `tls` makes it speak TLS from the first byte, `starttls` after that
    command; `heard` lists the steps in the order they came, `lines` the commands, over all
    connections.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
        **answers: Iterable[Answer],
    ) -> None:
        self.follow(**answers)
        self._tls, self._starttls = tls, starttls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._open: list[socket.socket] = []
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> ScriptedPostbox:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        _shut(self._listener)
        self._threads[0].join()
        self.hang_up()
        for thread in self._threads:
            thread.join()
        for connection in self._open:
            connection.close()

    def follow(self, **answers: Iterable[Answer]) -> None:
        """Answer from another script from now on, and forget what has come so far."""
        unknown = answers.keys() - GOOD.keys()
        assert not unknown, f"no such step: {unknown}"
        self.mails: list[Mail] = []
        self.heard: list[str] = []
        self.lines: list[str] = []
        self.connections = 0
        self._answers: dict[str, Iterator[Answer]] = {
            step: iter(answer) for step, answer in answers.items()
        }

    def hang_up(self) -> None:
        """Close all connections, as a server does with those that idle."""
        for connection in self._open:
            _shut(connection)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=[connection])
                self._threads.append(thread)
                thread.start()
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            self._talk(self._wrapped(connection, self._tls) if self._tls else connection)

    def _talk(self, connection: socket.socket) -> None:
        sender, recipients = "", list[str]()
        lines = connection.makefile("rb")
        going_on = self._answer(connection, "CONNECT")
        while going_on and (line := lines.readline()):
            self.lines.append(line.decode("ascii", "replace").strip())
            verb, _, rest = self.lines[-1].partition(" ")
            step = "RESPONSE" if going_on == "334" else verb.upper()
            going_on = self._answer(connection, step)
            if step == "MAIL":
                sender, recipients = _address(rest), []
            elif step == "RCPT":
                recipients.append(_address(rest))
            elif step == "DATA" and going_on == "354":
                data = b"".join(iter(lines.readline, b".\r\n"))
                mail = Mail(sender, recipients, data.replace(b"\r\n..", b"\r\n."))
                going_on = self._answer(connection, "END", mail)
            elif step == "STARTTLS" and going_on == "220" and self._starttls:
                connection = self._wrapped(connection, self._starttls)
                lines = connection.makefile("rb")

    def _answer(self, connection: socket.socket, step: str, mail: Mail | None = None) -> str:
        """Answer `step`, keep an accepted `mail` and return the code sent; empty: hang up."""
        self.heard.append(step)
        answer = next(self._answers.get(step, iter(())), GOOD.get(step, "500 what?"))
        if isinstance(answer, Drip):
            for byte in answer.data:
                connection.sendall(bytes([byte]))
                if self._closing.wait(answer.seconds):
                    break
        elif isinstance(answer, str):
            if mail and answer.startswith("250"):
                self.mails.append(mail)  # before it is told, since tests look for it then
            connection.sendall(answer.encode() + b"\r\n")
            return answer[:3]
        elif answer is SILENCE:
            self._closing.wait()
        _shut(connection)
        return ""

    def _wrapped(self, connection: socket.socket, context: ssl.SSLContext) -> socket.socket:
        wrapped = context.wrap_socket(connection, server_side=True)
        self._open.append(wrapped)
        return wrapped


def _address(text: str) -> str:
    return text[text.index("<") + 1 : text.index(">")]


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
