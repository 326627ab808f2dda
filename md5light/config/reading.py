"""Reading the configuration: which file, what is in it, and one line on what is wrong."""

from __future__ import annotations

import configparser
import dataclasses
import difflib
import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from md5light.config.keys import SECTIONS, USER_AGENT, Config
from md5light.config.showing import MASK, masked
from md5light.config.values import absolute
from md5light.errors import ConfigError

#: where the file is looked for when neither --config nor $MD5LIGHT_CONFIG names one
DEFAULT_FILE = Path("/etc/md5light/config.ini")

#: an unknown key with one of these in it may hold a secret
SECRET_WORDS = ("pass", "pw", "secret", "token")


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
    return _with_password(_with_user_agent(config), file, environ)


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
            read[field.name] = absolute(value, file.parent) if field.metadata["path"] else value
        except ValueError as error:
            raise _wrong(file, name, field.name, text, str(error)) from None
    return SECTIONS[name](**read)


def _wrong(file: Path | None, section: str, key: str, value: str, problem: str) -> ConfigError:
    # By its name, not by the key's description: an unknown key may be a misspelt password.
    secret = difflib.get_close_matches(key, ["password"]) or any(
        word in key for word in SECRET_WORDS
    )
    shown = MASK if secret and not key.endswith("file") else masked(" ".join(value.split()))
    return ConfigError(f"{file or 'environment'}: [{section}] {key} = {shown}: {problem}")


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


def _with_user_agent(config: Config) -> Config:
    """Say in the default User-Agent whom a server's operator may turn to."""
    if config.download.user_agent != USER_AGENT or not config.server.base_url:
        return config
    user_agent = f"{USER_AGENT} (+{config.server.base_url})"
    return dataclasses.replace(
        config, download=dataclasses.replace(config.download, user_agent=user_agent)
    )


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
