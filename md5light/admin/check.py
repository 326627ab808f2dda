"""`md5light config …`: checks the configuration for errors and for likely mistakes."""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from md5light import config as configuration
from md5light.admin.output import print_json
from md5light.config import Config, ServerConfig, SmtpConfig
from md5light.errors import ConfigError, DatabaseError, OldSchema, Refused
from md5light.mail import smtp
from md5light.mail.addresses import check_address
from md5light.queue import POSTGRESQL, open_database
from md5light.web.tokens import TokenFile

#: seconds that `config check` waits for the mail server
REACH_SECONDS = 5.0

#: the beginning of each SQLite file (https://www.sqlite.org/fileformat.html), unless it is empty
SQLITE_MAGIC = b"SQLite format 3\0"

#: bytes written beside the database to see whether there is room: some of SQLite's pages
ROOM_BYTES = 64 * 4096

#: permission of everybody else to read a file
OTHERS_READ = 0o004

#: the values of [smtp] security that go with a port, the usual one first
USUAL_SECURITY = {25: ("starttls", "none"), 465: ("tls",), 587: ("starttls", "none")}


def config_check(config: Config, arguments: argparse.Namespace) -> None:
    """Print that the configuration is right, and warnings; reading it has found most errors."""
    file = configuration.find(arguments.config)
    name = str(file or "the defaults")
    if problem := _login_problem(config.smtp):
        source = config.sources["smtp", "username"]
        raise ConfigError(f"{source}: [smtp] username = {config.smtp.username}: {problem}")
    if config.server.tokens_file:
        TokenFile(config).read()
    found = [*_database_warnings(config, name), *warnings(config)]
    for warning in found:
        print(f"md5light: warning: {warning}", file=sys.stderr)
    if arguments.json:
        print_json({"configuration": name, "warnings": found})
    else:
        print(f"{name}: ok")


def config_show(config: Config, arguments: argparse.Namespace) -> None:
    """Print the configuration as an INI file, or as JSON, with secrets masked."""
    if arguments.json:
        values = configuration.shown(config)
        print_json([value._asdict() for value in values])
    else:
        print(configuration.show(config))


def _login_problem(config: SmtpConfig) -> str:
    """Say why no mail server can take the login; empty: it may."""
    if not config.username or config.password:
        return ""
    if config.password_file:
        return f"there is no password in the first line of {config.password_file}"
    return (
        "there is no password; set password or password_file, or name the folder of systemd's "
        "credential smtp-password in $CREDENTIALS_DIRECTORY"
    )


# --- the database ---------------------------------------------------------------------------------


def _database_warnings(config: Config, name: str) -> Iterator[str]:
    """Name an old schema; ConfigError when the jobs can't be kept there."""
    location = config.queue.database
    source = config.sources.get(("queue", "database"), name)
    if not location.startswith(POSTGRESQL) and (problem := _file_problem(Path(location))):
        raise ConfigError(f"{source}: [queue] database = {location}: {problem}")
    try:
        _look_at(location)
    except OldSchema as error:
        yield str(error)
    except DatabaseError as error:  # it names the database, but not the password
        raise ConfigError(f"{source}: [queue] {error}") from None


def _look_at(location: str) -> None:
    """Open the database as the service would, and change nothing; a file need not be there yet."""
    if location.startswith(POSTGRESQL) or (
        Path(location).exists() and Path(location).stat().st_size
    ):
        open_database(location, durable=False, migrate=False).close()


def _file_problem(path: Path) -> str:
    """Say why an SQLite database can't be there, without making or changing one."""
    try:
        tempfile.TemporaryFile(dir=path.parent).close()  # SQLite writes its log beside the file
    except OSError as error:
        return f"its folder can't be written: {error.strerror}"
    try:
        with path.open("r+b") as file:
            start = file.read(len(SQLITE_MAGIC))
    except FileNotFoundError:  # the server or the pool makes it
        return ""
    except OSError as error:
        return f"can't be written: {error.strerror}"
    return "" if start in (b"", SQLITE_MAGIC) else "is not an SQLite database"


# --- warnings -------------------------------------------------------------------------------------


def warnings(config: Config) -> Iterator[str]:
    """Yield warnings of settings that are allowed but often mistakes."""
    if problem := configuration.undecided(config):
        yield problem
    yield from _server_warnings(config.server)
    yield from _worker_warnings(config)
    if not config.queue.database.startswith(POSTGRESQL):
        yield from _folder_warnings(Path(config.queue.database).parent)
    yield from _secret_warnings(config)
    yield from _password_warnings(config.smtp)
    if config.smtp.host:
        yield from _mail_warnings(config.smtp)


def _server_warnings(server: ServerConfig) -> Iterator[str]:
    if server.base_url or (configuration.is_loopback(server.host) and not server.trusted_proxy):
        return
    reason = "trusted_proxy is set" if server.trusted_proxy else f"host = {server.host}"
    yield f"[server] base_url is empty, but {reason}: links in mails go to {server.public_url}"


def _worker_warnings(config: Config) -> Iterator[str]:
    stop, lease = config.worker.shutdown_seconds, config.queue.lease_seconds
    if stop > lease:
        yield (
            f"[worker] shutdown_seconds = {stop:g} is more than [queue] lease_seconds = {lease:g}: "
            "a stop may take longer than a killed worker's jobs would wait"
        )
    needed = config.worker.descriptors
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit != resource.RLIM_INFINITY and limit < needed:
        yield (
            f"[worker] threads = {config.worker.threads} may need {needed} file descriptors in "
            f"each process, but the limit here is {limit}; see ulimit -Hn or LimitNOFILE="
        )


def _folder_warnings(folder: Path) -> Iterator[str]:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield f"{folder}: the database has no room to grow: {error.strerror}"
    try:
        with (
            tempfile.TemporaryDirectory(dir=folder) as inner,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell,
        ):
            opened = os.open(inner, os.O_PATH | os.O_DIRECTORY)
            try:
                bell.bind(f"/proc/self/fd/{opened}/bell")  # however long its path is
            finally:
                os.close(opened)
    except OSError as error:
        yield (
            f"{folder}: takes no Unix sockets ({error.strerror}): idle workers look for new jobs "
            "instead of being woken"
        )


def _secret_warnings(config: Config) -> Iterator[str]:
    """Name the files that hold a password and that everybody on this machine can read."""
    secrets = {("smtp", "password"): bool(config.smtp.password)}
    database = config.queue.database
    secrets["queue", "database"] = configuration.masked(database) != database
    holders = {config.sources.get(key, "") for key, is_set in secrets.items() if is_set}
    for holder in sorted(holders):
        path = Path(holder)  # of a file, or the name of a variable
        if path.is_file() and path.stat().st_mode & OTHERS_READ:
            yield (
                f"{holder}: holds a password and can be read by everybody on this machine; "
                "chmod o-r would end that"
            )


def _password_warnings(config: SmtpConfig) -> Iterator[str]:
    password = config.password
    if config.password_file and not password:
        yield f"[smtp] password_file = {config.password_file}: its first line is empty"
    if password != password.strip():
        yield "[smtp] password begins or ends with a blank, which is sent as a part of it"
    if len(password) > 1 and password[0] == password[-1] and password[0] in "\"'`":
        yield "[smtp] password is in quotes, which are sent as a part of it"


def _mail_warnings(config: SmtpConfig) -> Iterator[str]:
    """Yield warnings of settings that mail servers refuse, and of an unreachable server."""
    try:
        check_address(config.sender_address, local_domains=False)
    except Refused:
        yield (
            f"[smtp] sender = {config.sender} is an address of this machine alone: "
            "most mail servers refuse it"
        )
    if config.security not in USUAL_SECURITY.get(config.port, config.security):
        usual = USUAL_SECURITY[config.port][0]
        yield f"[smtp] port = {config.port} usually wants security = {usual}"
    if config.username and config.security == "none" and not configuration.is_loopback(config.host):
        yield "[smtp] security = none: the password is not sent without TLS, so no login succeeds"
    if problem := smtp.unreachable(config, min(config.timeout, REACH_SECONDS)):
        yield (
            f"[smtp] host = {config.host}, port = {config.port}: can't be reached now: {problem}"
        )
