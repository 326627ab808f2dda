"""The INI file: every key with its type, its default and its meaning, in one place.

Each section is a frozen dataclass, each key a field made by `_key`. The example file, `config show`, the
checks and the code all read these fields, so there is one source of defaults.
"""

from __future__ import annotations

import configparser
import dataclasses
import difflib
import ipaddress
import os
import re
import ssl
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from md5light import __version__
from md5light.errors import ConfigError

#: where the file is looked for when neither --config nor $MD5LIGHT_CONFIG names one
DEFAULT_FILE = Path("/etc/md5light/config.ini")

#: what is shown in a secret's place
MASK = "********"

#: an unknown key with one of these in it may hold a secret
SECRET_WORDS = ("pass", "pw", "secret", "token")

ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
LABEL = r"[A-Za-z0-9-]+"

#: The only mail addresses that reach a header or an SMTP command: a dot-string of at most 64 characters and a domain
#: in ASCII (RFC 5321 sections 4.1.2 and 4.5.3.1.1), without the beginning of an encoded word (RFC 2047), which some
#: programs decode even in an address.
PLAIN_ADDRESS = re.compile(rf"(?=.{{1,64}}@)(?!.*=\?){ATOM}(\.{ATOM})*@{LABEL}(\.{LABEL})*")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Ports:
    """A set of port numbers, as ranges that include both ends."""

    ranges: tuple[tuple[int, int], ...]

    def __contains__(self, port: int) -> bool:
        return any(first <= port <= last for first, last in self.ranges)

    def __str__(self) -> str:
        return " ".join(
            str(first) if first == last else f"{first}-{last}" for first, last in self.ranges
        )


# --- readers: from the text of a value to the value; a ValueError says what was expected -----------------------


def _text(value: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("must be one line without control characters")
    return value


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of: {', '.join(choices)}")
        return value

    return read


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        if (
            not re.fullmatch(r"[+-]?([0-9]{1,20}(\.[0-9]*)?|\.[0-9]+)", value)
            or not low <= float(value) <= high
        ):
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return read


def _yes_or_no(value: str) -> bool:
    try:
        return configparser.ConfigParser.BOOLEAN_STATES[value.lower()]
    except KeyError:
        raise ValueError("must be yes or no") from None


def _items(value: str) -> list[str]:
    return [item for item in re.split(r"[\s,]+", value) if item]


def _networks(value: str) -> tuple[Network, ...]:
    networks = []
    for item in _items(value):
        try:
            networks.append(ipaddress.ip_network(item))
        except ValueError:
            raise ValueError(
                f"must be networks such as 10.0.0.0/8 or fd00::/8; {item!r} is not one"
            ) from None
    return tuple(networks)


def _ports(value: str) -> Ports:
    ranges = []
    for item in _items(value):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", item)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            raise ValueError(
                f"must be ports from 1 to 65535 or ranges such as 8000-8999; {item!r} is neither"
            )
        ranges.append((first, last))
    if not ranges:
        raise ValueError("must name at least one port")
    return Ports(tuple(ranges))


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value)) if value else ""
    except ValueError:
        raise ValueError("must be an IP address") from None


def _http_url(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
        raise ValueError("must be a URL such as https://md5.example.org")
    return value.rstrip("/")


def _host(value: str) -> str:
    if not re.fullmatch(r"[^\s/@\x00-\x1f\x7f]+", value):
        raise ValueError("must be a host name or an IP address")
    return value


def _host_or_nothing(value: str) -> str:
    return _host(value) if value else value


def _mail_address(value: str) -> str:
    if not PLAIN_ADDRESS.fullmatch(value):
        raise ValueError("must be a plain mail address such as md5light@example.org")
    return value


def _database(value: str) -> str:
    if not _text(value) or ("://" in value and not value.startswith("postgresql://")):
        raise ValueError("must be a file or postgresql://…")
    return value


def _path(value: str) -> str:
    if not _text(value):
        raise ValueError("must be a path")
    return value


def _header(value: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]+", value):
        raise ValueError("must be printable ASCII characters")
    return value


# --- the keys --------------------------------------------------------------------------------------------------


def _key(
    read: Callable[[str], T],
    default: str,
    meaning: str,
    *,
    secret: bool = False,
    path: bool = False,
) -> T:
    """Describe a key: `default` is written as it would be in the file and read by the same reader."""
    metadata = {
        "read": read,
        "default": default,
        "meaning": meaning,
        "secret": secret,
        "path": path,
    }

    def value() -> Any:
        return _absolute(read(default), Path.cwd()) if path else read(default)  # type: ignore[arg-type]

    field: T = dataclasses.field(default_factory=value, metadata=metadata)
    return field


@dataclasses.dataclass(frozen=True)
class ServerConfig:
    """[server]: the HTTP API."""

    host: str = _key(_host, "127.0.0.1", "address to listen on")
    port: int = _key(
        _integer(0, 65535), "8080", "port to listen on; 0: any free one, written in the log"
    )
    threads: int = _key(_integer(1, 1000), "8", "threads that answer requests")
    base_url: str = _key(
        _http_url, "", "public address, for links in mails; empty: http://HOST:PORT"
    )
    trusted_proxy: str = _key(
        _ip_address,
        "",
        "address of the reverse proxy whose X-Forwarded-For is believed; empty: none",
    )
    max_unfinished: int = _key(
        _integer(1, 10**12), "100000", "jobs waiting or running; above it /submit answers 503"
    )
    submits_per_minute: int = _key(
        _integer(0, 10**9),
        "0",
        "submissions per client address (IPv6: per /64); above it 429; 0: no limit",
    )

    @property
    def public_url(self) -> str:
        """Where people reach the server, without a slash at the end."""
        return self.base_url or http_url(self.host, self.port)


@dataclasses.dataclass(frozen=True)
class QueueConfig:
    """[queue]: where jobs are kept and when they are tried."""

    database: str = _key(_database, "md5light.sqlite3", "a file, or postgresql://…", path=True)
    lease_seconds: float = _key(
        _number(1, 86400), "60", "a claim not renewed for so long is free again"
    )
    max_attempts: int = _key(_integer(1, 1000), "5", "attempts per job")
    retry_seconds: float = _key(
        _number(0, 3600),
        "10",
        "seconds of the first back-off; it doubles, with jitter, to an hour at most",
    )
    retention_days: float = _key(
        _number(0, 36500), "0", "finished jobs older than so many days are removed; 0: kept"
    )


@dataclasses.dataclass(frozen=True)
class WorkerConfig:
    """[worker]: the pool."""

    processes: int = _key(_integer(1, 1000), "4", "worker processes")
    threads: int = _key(_integer(1, 1000), "8", "downloads at once in each process")
    shutdown_seconds: float = _key(
        _number(0, 86400),
        "25",
        "seconds that a stopping pool lets running downloads finish, before it gives them back",
    )
    per_host: int = _key(
        _integer(0, 10**6),
        "8",
        "downloads at once from one host, over all processes and machines; 0: no limit",
    )


@dataclasses.dataclass(frozen=True)
class DownloadConfig:
    """[download]: what is fetched, from where, and for how long."""

    connect_timeout: float = _key(_number(0.001, 3600), "10", "seconds to connect")
    read_timeout: float = _key(_number(0.001, 3600), "30", "seconds of silence that end a download")
    max_seconds: float = _key(
        _number(0.001, 604800),
        "21600",
        "seconds for one attempt, from name look-up to the last byte",
    )
    max_bytes: int = _key(_integer(0, 10**18), "0", "largest file, in bytes; 0: no limit")
    max_redirects: int = _key(_integer(0, 100), "10", "redirects followed; 0: none")
    allow_networks: tuple[Network, ...] = _key(
        _networks, "", "networks (CIDR) open to downloads although not public, such as 10.1.0.0/16"
    )
    allow_ports: Ports = _key(_ports, "80 443 1024-65535", "ports that downloads may use")
    ca_file: str = _key(
        _text, "", "file of certificates (PEM) to trust besides the usual ones", path=True
    )
    user_agent: str = _key(_header, f"md5light/{__version__}", "the User-Agent header sent")


@dataclasses.dataclass(frozen=True)
class SmtpConfig:
    """[smtp]: how mails leave."""

    host: str = _key(_host_or_nothing, "", "mail server; empty: mails are kept in maildir")
    port: int = _key(_integer(1, 65535), "587", "its port")
    security: str = _key(_one_of("starttls", "tls", "none"), "starttls", "starttls, tls or none")
    username: str = _key(_text, "", "name to log in with; empty: no login")
    password: str = _key(_text, "", "better kept in password_file", secret=True)
    password_file: str = _key(
        _text,
        "",
        "its first line is the password; $CREDENTIALS_DIRECTORY/smtp-password is read when neither is set",
        path=True,
    )
    sender: str = _key(_mail_address, "md5light@localhost", "the From address, and the envelope's")
    timeout: float = _key(
        _number(0.001, 3600),
        "30",
        "seconds for each step; the whole exchange ends within four times that",
    )
    ca_file: str = _key(
        _text, "", "file of certificates (PEM) to trust besides the usual ones", path=True
    )
    max_attempts: int = _key(_integer(1, 1000), "10", "attempts per mail")
    per_recipient_per_hour: int = _key(
        _integer(0, 10**9),
        "0",
        "mails to one address in an hour; above it /submit answers 429; 0: no limit",
    )
    maildir: str = _key(
        _path, "md5light-mail", "the Maildir that keeps mails while host is empty", path=True
    )
    local_domains: bool = _key(
        _yes_or_no,
        "no",
        "accept addresses in localhost, names without a dot, .local and .test (always so without a host)",
    )


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """[log]: what is written to standard error."""

    level: str = _key(
        _one_of("debug", "info", "warning", "error"), "info", "debug, info, warning or error"
    )
    format: str = _key(_one_of("text", "json"), "text", "text (key=value) or json")


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration, checked; paths in it are absolute."""

    server: ServerConfig = dataclasses.field(default_factory=ServerConfig)
    queue: QueueConfig = dataclasses.field(default_factory=QueueConfig)
    worker: WorkerConfig = dataclasses.field(default_factory=WorkerConfig)
    download: DownloadConfig = dataclasses.field(default_factory=DownloadConfig)
    smtp: SmtpConfig = dataclasses.field(default_factory=SmtpConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)


SECTIONS: dict[str, Any] = {
    "server": ServerConfig,
    "queue": QueueConfig,
    "worker": WorkerConfig,
    "download": DownloadConfig,
    "smtp": SmtpConfig,
    "log": LogConfig,
}


# --- reading and showing ---------------------------------------------------------------------------------------


def load(
    path: str | None = None,
    environ: Mapping[str, str] = os.environ,
    default_file: Path = DEFAULT_FILE,
) -> Config:
    """Read the configuration that applies: `path`, else $MD5LIGHT_CONFIG, else `default_file`, else the defaults.

    Relative paths, the defaults' too, start at the file's folder, without a file at the working directory.
    Raises ConfigError, one line, when the file can't be read or anything in it is unknown or wrong.
    """
    file = find(path, environ, default_file)
    if file is None:
        return _with_password(Config(), None, environ)
    values = _read(file)
    for name, section in values.items():
        if name not in SECTIONS:
            raise ConfigError(f"{file}: [{name}]: unknown section; there are {', '.join(SECTIONS)}")
        known = {field.name for field in dataclasses.fields(SECTIONS[name])}
        for key, value in section.items():
            if key not in known:
                raise _wrong(file, name, key, value, "unknown key")
    config = Config(**{name: _section(file, name, values.get(name, {})) for name in SECTIONS})
    _check_certificates(file, "download", config.download.ca_file)
    _check_certificates(file, "smtp", config.smtp.ca_file)
    return _with_password(config, file, environ)


def find(
    path: str | None, environ: Mapping[str, str] = os.environ, default_file: Path = DEFAULT_FILE
) -> Path | None:
    """Tell which file `load` reads, None where the defaults apply."""
    named = path or environ.get("MD5LIGHT_CONFIG")
    if named:
        return Path(named)
    try:
        default_file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # such as a folder closed to us: reading it says so, the defaults would hide it
        return default_file
    return default_file


def reader(section: str, key: str) -> Callable[[str], Any]:
    """Return what reads a value of this key: a ValueError says what was expected."""
    fields = {field.name: field for field in dataclasses.fields(SECTIONS[section])}
    read: Callable[[str], Any] = fields[key].metadata["read"]
    return read


def http_url(host: str, port: int) -> str:
    """Write the URL of a server, an IPv6 address in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def show(config: Config) -> str:
    """Write `config` as an INI file, with secrets masked."""
    lines = []
    for name, section in SECTIONS.items():
        lines.append(f"[{name}]")
        for field in dataclasses.fields(section):
            value = getattr(getattr(config, name), field.name)
            shown = MASK if field.metadata["secret"] and value else _masked(_written(value))
            lines.append(f"{field.name} = {shown}".rstrip())
        lines.append("")
    return "\n".join(lines[:-1])


def _read(file: Path) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=True, default_section="")
    try:
        parser.read_string(file.read_text(encoding="utf-8-sig"), source=str(file))
    except OSError as error:
        raise ConfigError(f"{file}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text") from None
    except configparser.DuplicateSectionError as error:
        raise ConfigError(
            f"{file}: line {error.lineno}: [{error.section}]: section given twice"
        ) from None
    except configparser.DuplicateOptionError as error:
        raise ConfigError(
            f"{file}: line {error.lineno}: [{error.section}] {error.option}: key given twice"
        ) from None
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(
            f"{file}: line {error.lineno}: stands before the first [section]"
        ) from None
    except (
        configparser.ParsingError
    ) as error:  # its own message quotes the line, which may hold a password
        raise ConfigError(
            f"{file}: line {error.errors[0][0]}: is neither [section] nor key = value"
        ) from None
    return {name: dict(parser[name]) for name in parser.sections()}


def _section(file: Path, name: str, values: dict[str, str]) -> Any:
    read = {}
    for field in dataclasses.fields(SECTIONS[name]):
        text = values.get(field.name, field.metadata["default"])
        try:
            value = field.metadata["read"](text)
            read[field.name] = _absolute(value, file.parent) if field.metadata["path"] else value
        except ValueError as error:
            raise _wrong(file, name, field.name, text, str(error)) from None
    return SECTIONS[name](**read)


def _wrong(file: Path | None, section: str, key: str, value: str, problem: str) -> ConfigError:
    # By its name, not by the key's description: an unknown key may be a misspelt password.
    secret = difflib.get_close_matches(key, ["password"]) or any(
        word in key for word in SECRET_WORDS
    )
    shown = MASK if secret and not key.endswith("file") else _masked(" ".join(value.split()))
    return ConfigError(f"{file or 'environment'}: [{section}] {key} = {shown}: {problem}")


def _masked(value: str) -> str:
    """Hide the password of a URL."""
    value = re.sub(r"(://[^:@/]*:).*@", rf"\g<1>{MASK}@", value)
    return re.sub(r"(?i)(password=)[^&\s]+", rf"\g<1>{MASK}", value)


def _absolute(value: str, folder: Path) -> str:
    if not value or value.startswith("postgresql://"):
        return value
    try:
        return str(folder.absolute() / Path(value).expanduser())
    except RuntimeError:  # what expanduser raises
        raise ValueError("names the home folder of nobody on this machine") from None


def _check_certificates(file: Path, section: str, ca_file: str) -> None:
    if ca_file:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
        except ssl.SSLError:
            raise _wrong(
                file, section, "ca_file", ca_file, "holds no certificate in PEM form"
            ) from None
        except OSError as error:
            raise _wrong(
                file, section, "ca_file", ca_file, f"can't be read: {error.strerror}"
            ) from None


def _with_password(config: Config, file: Path | None, environ: Mapping[str, str]) -> Config:
    """Fill in the password from its file, or from the credential that systemd's LoadCredential= hands over.

    `password_file` then names the file that it was read from; a password without one stood in the INI file itself.
    """
    source = config.smtp.password_file
    if config.smtp.password:
        if source:
            raise _wrong(
                file, "smtp", "password_file", source, "password is set too; keep one of them"
            )
        return config
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if not source and credentials and os.path.lexists(Path(credentials) / "smtp-password"):
        source = str(Path(credentials) / "smtp-password")
    if not source:
        return config
    try:
        first = Path(source).read_text(encoding="utf-8-sig").partition("\n")[0]
    except OSError as error:
        raise _wrong(
            file, "smtp", "password_file", source, f"can't be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise _wrong(file, "smtp", "password_file", source, "is not UTF-8 text") from None
    return dataclasses.replace(
        config, smtp=dataclasses.replace(config.smtp, password=first, password_file=source)
    )


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(str(item) for item in value)
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}".removesuffix(
            ".0"
        )  # never 1e-05, which the readers refuse
    return str(value)
