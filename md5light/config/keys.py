"""The keys of the INI file: each with its type, its default and its meaning.

Each section is a frozen dataclass, each key a field made by `_key`. The example file, `show`, the
help of the commands and the checks all use these fields: they are the one source of defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from md5light import __version__, mailbox
from md5light.config import values
from md5light.config.values import Network, Ports

T = TypeVar("T")

#: the default of `user_agent`
USER_AGENT = f"md5light/{__version__}"

#: file descriptors that a worker process needs, and each of its slots: for its connection, for idle
#: ones, and for its share of the database's
DESCRIPTORS = 64
DESCRIPTORS_PER_THREAD = 16


def _key(
    read: Callable[[str], T],
    default: str,
    meaning: str,
    *,
    secret: bool = False,
    path: bool = False,
) -> T:
    """Describe a key: `read` parses its text, `default` is its default as such a text."""
    metadata = {
        "read": read,
        "default": default,
        "meaning": meaning,
        "secret": secret,
        "path": path,
    }

    def make() -> Any:
        value: Any = read(default)
        return values.absolute(value, Path()) if path else value

    field: T = dataclasses.field(default_factory=make, metadata=metadata)
    return field


@dataclasses.dataclass(frozen=True)
class ServerConfig:
    """[server]: the HTTP API."""

    host: str = _key(
        values.listening_address,
        "127.0.0.1",
        "address to listen on, or unix:/PATH for a socket",
    )
    port: int = _key(
        values.integer(0, 65535), "8080", "port to listen on; 0: any free one, written in the log"
    )
    threads: int = _key(values.integer(1, 1000), "8", "threads that answer requests")
    base_url: str = _key(
        values.site_url, "", "public address, for links in mails; empty: http://HOST:PORT"
    )
    trusted_proxy: tuple[Network, ...] = _key(
        values.networks,
        "",
        "addresses or networks (CIDR) of the reverse proxy whose X-Forwarded-For, -Host and -Proto "
        "are believed; empty: none",
    )
    public: bool = _key(
        values.yes_or_no,
        "no",
        "yes: strangers can reach this service; other keys then have other defaults",
    )
    max_unfinished: int = _key(
        values.integer(1, 10**12), "100000", "jobs waiting or running; above it /submit answers 503"
    )
    submits_per_minute: int = _key(
        values.integer(0, 10**9),
        "0",
        "submissions per client address (IPv6: per /64); each line of a batch counts; "
        "above it 429; "
        "0: no limit",
    )
    max_unfinished_per_client: int = _key(
        values.integer(0, 10**12),
        "0",
        "jobs waiting or running of one client (its token, else its address; IPv6: its /64), a "
        "batch's at a tenth; above it 429; 0: no limit",
    )
    max_batch_lines: int = _key(
        values.integer(0, 10**7), "100000", "lines of one batch; above it 413; 0: no batches (404)"
    )
    max_batch_bytes: int = _key(
        values.integer(1, 10**12), "33554432", "bytes of the list; above it 413"
    )
    max_unfinished_batches: int = _key(
        values.integer(1, 10**6),
        "100",
        "unfinished batches; above it POST /batches answers 503",
    )
    tokens_file: str = _key(
        values.text,
        "",
        "who may submit, one NAME:SHA-256 of the token a line; empty: everybody",
        path=True,
    )

    @property
    def public_url(self) -> str:
        """The address of the server for people, without a slash at its end."""
        if self.host.startswith(values.UNIX):
            return self.base_url or "http://localhost"
        return self.base_url or values.http_url(self.host, self.port)


@dataclasses.dataclass(frozen=True)
class QueueConfig:
    """[queue]: the database, and the times of attempts."""

    database: str = _key(
        values.database, "md5light.sqlite3", "a file, or postgresql://…", path=True
    )
    lease_seconds: float = _key(
        values.number(1, 86400), "60", "a claim not renewed for so long is free again"
    )
    max_attempts: int = _key(values.integer(1, 1000), "5", "attempts per job")
    retry_seconds: float = _key(
        values.number(0, 3600),
        "10",
        "seconds of the first back-off; it doubles, with jitter, to an hour at most",
    )
    retention_days: float = _key(
        values.number(0, 36500), "0", "finished jobs older than so many days are removed; 0: kept"
    )


@dataclasses.dataclass(frozen=True)
class WorkerConfig:
    """[worker]: the pool."""

    processes: int = _key(values.integer(1, 1000), "4", "worker processes")
    threads: int = _key(values.integer(1, 1000), "8", "downloads at once in each process")
    shutdown_seconds: float = _key(
        values.number(0, 86400),
        "25",
        "seconds that a stopping pool lets running downloads finish, before it gives them back",
    )
    per_host: int = _key(
        values.integer(0, 10**6),
        "8",
        "downloads at once from one host, over all processes and machines; 0: no limit",
    )

    @property
    def descriptors(self) -> int:
        """File descriptors that a worker process may need."""
        return DESCRIPTORS + DESCRIPTORS_PER_THREAD * self.threads


@dataclasses.dataclass(frozen=True)
class DownloadConfig:
    """[download]: limits of downloads, and the networks and ports that they may use."""

    connect_timeout: float = _key(values.number(0.001, 3600), "10", "seconds to connect")
    read_timeout: float = _key(
        values.number(0.001, 3600), "30", "seconds of silence that end a download"
    )
    first_byte_timeout: float = _key(
        values.number(0.001, 3600), "120", "seconds until the first byte of an answer"
    )
    max_seconds: float = _key(
        values.number(0.001, 604800),
        "21600",
        "seconds for one attempt, from name look-up to the last byte",
    )
    max_bytes: int = _key(values.integer(0, 10**18), "0", "largest file, in bytes; 0: no limit")
    min_bytes_per_second: int = _key(
        values.integer(0, 10**9),
        "100",
        "a body slower than this over 60 s ends as timed_out; 0: no limit",
    )
    max_redirects: int = _key(values.integer(0, 100), "20", "redirects followed; 0: none")
    allow_networks: tuple[Network, ...] = _key(
        values.networks,
        "",
        "networks (CIDR) open to downloads although not public, such as 10.1.0.0/16",
    )
    allow_ports: Ports = _key(values.ports, "80 443 1024-65535", "ports that downloads may use")
    ca_file: str = _key(
        values.text,
        "",
        "file of certificates (PEM) to trust in addition to the usual ones",
        path=True,
    )
    user_agent: str = _key(
        values.header,
        USER_AGENT,
        "the User-Agent header sent; the default is followed by (+base_url) where that is set",
    )


@dataclasses.dataclass(frozen=True)
class SmtpConfig:
    """[smtp]: the delivery of mails."""

    host: str = _key(values.host_or_nothing, "", "mail server; empty: mails are kept in maildir")
    port: int = _key(values.integer(1, 65535), "587", "its port")
    security: str = _key(
        values.one_of("starttls", "tls", "none"), "starttls", "starttls, tls or none"
    )
    username: str = _key(values.text, "", "name to log in with; empty: no login")
    password: str = _key(values.text, "", "better kept in password_file", secret=True)
    password_file: str = _key(
        values.text,
        "",
        "its first line is the password; $CREDENTIALS_DIRECTORY/smtp-password is read when neither "
        "is set",
        path=True,
    )
    sender: str = _key(
        values.sender,
        "md5light@localhost",
        "the From address, and the envelope's; Name <address> is taken, too",
    )
    timeout: float = _key(
        values.number(0.001, 3600),
        "30",
        "seconds for each step; the whole exchange ends within four times that",
    )
    ca_file: str = _key(
        values.text,
        "",
        "file of certificates (PEM) to trust in addition to the usual ones",
        path=True,
    )
    give_up_days: float = _key(
        values.number(0, 365), "4", "days that a mail is tried before it is given up"
    )
    helo_name: str = _key(values.helo_name, "", "name said in EHLO; empty: this host's")
    reply_to: str = _key(
        values.sender_or_nothing, "", "where answers to mails go; empty: to the sender"
    )
    per_recipient_per_hour: int = _key(
        values.integer(0, 10**9),
        "0",
        "mails to one address in an hour; above it /submit answers 429; 0: no limit",
    )
    address_retention_days: float = _key(
        values.number(0, 36500),
        "30",
        "days after which the address of a mail that has ended is removed; 0: kept as long as the "
        "job",
    )
    maildir: str = _key(
        values.path, "md5light-mail", "the Maildir that keeps mails while host is empty", path=True
    )
    attach_bytes: int = _key(
        values.integer(0, 10**9),
        "1048576",
        "a batch's manifest is attached (gzip) up to this size; above it the mail has the link "
        "alone",
    )
    local_domains: bool = _key(
        values.yes_or_no,
        "no",
        "accept addresses in localhost, names without a dot, .local and .test (always so without "
        "a host)",
    )

    @property
    def sender_address(self) -> str:
        """The address in `sender`, for the envelope."""
        return mailbox.parse(self.sender).address


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """[log]: the log on standard error."""

    level: str = _key(
        values.one_of("debug", "info", "warning", "error"), "info", "debug, info, warning or error"
    )
    format: str = _key(values.one_of("text", "json"), "text", "text (key=value) or json")


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration, checked; paths in it are absolute."""

    server: ServerConfig = dataclasses.field(default_factory=ServerConfig)
    queue: QueueConfig = dataclasses.field(default_factory=QueueConfig)
    worker: WorkerConfig = dataclasses.field(default_factory=WorkerConfig)
    download: DownloadConfig = dataclasses.field(default_factory=DownloadConfig)
    smtp: SmtpConfig = dataclasses.field(default_factory=SmtpConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    #: the file or the variable that sets a value, by section and key; defaults have none
    sources: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict, compare=False)


SECTIONS: dict[str, Any] = {
    "server": ServerConfig,
    "queue": QueueConfig,
    "worker": WorkerConfig,
    "download": DownloadConfig,
    "smtp": SmtpConfig,
    "log": LogConfig,
}


def description(section: str, key: str) -> Mapping[str, Any]:
    """Return the description of a key: `read`, `default`, `meaning`, `secret`, `path`."""
    (field,) = (field for field in dataclasses.fields(SECTIONS[section]) if field.name == key)
    return field.metadata
