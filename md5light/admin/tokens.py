"""`md5light token …`: adds, lists and removes tokens."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import secrets
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from md5light.admin.output import print_json
from md5light.config import Config
from md5light.errors import ConfigError, NotDone, Refused
from md5light.owner import give_to_owner
from md5light.text import visible
from md5light.web.tokens import TokenFile, digest, is_name, is_token


def token_add(config: Config, arguments: argparse.Namespace) -> None:
    """Make a token and print it; the file has only its hash."""
    name = unicodedata.normalize("NFC", arguments.name)
    if not is_name(name):
        raise Refused(
            "invalid_name",
            f"{visible(name)} can't be a name: it must be one word of at most 64 characters without"
            " a colon, and not begin with #",
        )
    token = secrets.token_urlsafe(32)
    with _changing(config) as lines:
        if name in _names(lines):
            raise NotDone(f"there is a token {name} already; remove it first")
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        lines.append(f"{name}:{digest(token.encode()).hex()}\n")
    if arguments.json:
        print_json({"name": name, "token": token})
    else:
        print(token)
        print("md5light: this token is not shown again; its hash is kept", file=sys.stderr)


def token_list(config: Config, arguments: argparse.Namespace) -> None:
    """Print the names of the tokens, in the file's order."""
    names = [token.name for token in _file(config).read()]
    if arguments.json:
        print_json(names)
    else:
        for name in names:
            print(name)


def token_remove(config: Config, arguments: argparse.Namespace) -> None:
    """Remove a token; the server refuses it from the next request on."""
    name = unicodedata.normalize("NFC", arguments.name)
    with _changing(config) as lines:
        kept = [line for line in lines if not is_token(line) or _name(line) != name]
        if len(kept) == len(lines):
            raise NotDone(f"there is no token {visible(name)}")
        lines[:] = kept
    if arguments.json:
        print_json({"removed": name})
    else:
        print(f"token {name} removed")


def _file(config: Config) -> TokenFile:
    if not config.server.tokens_file:
        raise ConfigError("[server] tokens_file is empty; set it to the file that keeps the tokens")
    return TokenFile(config)


@contextlib.contextmanager
def _changing(config: Config) -> Iterator[list[str]]:
    """Yield the lines of the file, which the block may change; then replace the file.

    Two commands at once wait for each other; a reader sees the old file or the new one.
    """
    file = _file(config)
    path = Path(os.path.realpath(file.path))
    with _locked(file, path.parent):
        if not path.exists():
            lines = []
        else:
            file.read()  # a malformed file is left to people
            lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
        yield lines
        _replace(path, "".join(lines))


@contextlib.contextmanager
def _locked(file: TokenFile, folder: Path) -> Iterator[None]:
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise file.wrong(f"its folder can't be opened: {error.strerror}") from None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
        os.fsync(opened)
    finally:
        os.close(opened)


def _replace(path: Path, text: str) -> None:
    """Replace the file by one with the same owner and mode; only its owner can read a new one.

    A file that root creates gets the owner of the folder, as the service's own files do.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    made = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            if path.exists():
                before = path.stat()
                os.chown(descriptor, before.st_uid, before.st_gid)
                os.chmod(descriptor, before.st_mode & 0o777)
            else:
                give_to_owner(descriptor, path.parent)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise


def _names(lines: list[str]) -> set[str]:
    return {_name(line) for line in lines if is_token(line)}


def _name(line: str) -> str:
    return line.strip().partition(":")[0]
