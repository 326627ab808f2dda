"""The sources of values: the INI file and the environment; they yield texts."""

from __future__ import annotations

import configparser
import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from md5light.config.keys import SECTIONS
from md5light.config.showing import quoted
from md5light.errors import ConfigError


class Setting(NamedTuple):
    """The text of one key."""

    text: str
    #: the file or the variable that sets it
    source: str
    #: the folder at which a relative path starts
    folder: Path


#: texts by section and key
Settings = dict[tuple[str, str], Setting]

#: the key that each variable sets
VARIABLES = {
    f"MD5LIGHT_{section}_{field.name}".upper(): (section, field.name)
    for section, described in SECTIONS.items()
    for field in dataclasses.fields(described)
}

#: variables that set no key: the file to read, and the server that the client asks
OTHER_VARIABLES = ("MD5LIGHT_CONFIG", "MD5LIGHT_SERVER")


def in_file(file: Path) -> Settings:
    """Read an INI file; raises ConfigError if it can't be read or has an unknown name."""
    settings = {}
    for section, texts in _parsed(file).items():
        if section not in SECTIONS:
            raise ConfigError(
                f"{file}: [{section}]: unknown section; there are {', '.join(SECTIONS)}"
            )
        known = {field.name for field in dataclasses.fields(SECTIONS[section])}
        for key, text in texts.items():
            settings[section, key] = setting = Setting(text, str(file), file.parent)
            if key not in known:
                raise wrong(setting, section, key, "unknown key")
    return settings


def in_environment(environ: Mapping[str, str]) -> Settings:
    """Read MD5LIGHT_SECTION_KEY, and the files that MD5LIGHT_SECTION_KEY_FILE names.

    If a key's own name ends in _file, the variable is that key: MD5LIGHT_SMTP_PASSWORD_FILE is
    `password_file`. Raises ConfigError for an unknown variable, and for both forms of one key.
    """
    settings: Settings = {}
    for name in sorted(environ):
        if not name.startswith("MD5LIGHT_") or name in OTHER_VARIABLES:
            continue
        key = VARIABLES.get(name) or VARIABLES.get(name.removesuffix("_FILE"))
        if not key:
            raise ConfigError(f"{name}: unknown variable{_meant(name)}")
        if key in settings:
            raise ConfigError(f"{name}: {settings[key].source} is set, too; keep one of them")
        text = _text(name, environ[name]) if name in VARIABLES else _content(name, environ[name])
        settings[key] = Setting(text.strip(), name, Path())
    return settings


def wrong(setting: Setting, section: str, key: str, problem: str) -> ConfigError:
    """Return an error of one line: the source, the key, its value and the problem."""
    shown = quoted(key, setting.text)
    return ConfigError(f"{setting.source}: [{section}] {key} = {shown}: {problem}")


def _parsed(file: Path) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=True, default_section="")
    try:
        parser.read_string(file.read_text(encoding="utf-8-sig"), source=str(file))
    except OSError as error:
        raise ConfigError(f"{file}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text") from None
    except configparser.Error as error:
        raise ConfigError(f"{file}: {_malformed(error)}") from None
    return {name: dict(parser[name]) for name in parser.sections()}


def _malformed(error: configparser.Error) -> str:
    """Name the wrong line without its text, which may contain a password."""
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {error.lineno}: [{error.section}]: section given twice"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {error.lineno}: [{error.section}] {error.option}: key given twice"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno}: stands before the first [section]"
    line = error.errors[0][0] if isinstance(error, configparser.ParsingError) else "?"
    return f"line {line}: is neither [section] nor key = value"


def _text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes that Python could not decode
        raise ConfigError(f"{name}: is not UTF-8 text") from None
    return value


def _content(name: str, file: str) -> str:
    """Read the file that a variable names."""
    shown = quoted("file", file)
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{name}: {shown}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: {shown}: is not UTF-8 text") from None


def _meant(name: str) -> str:
    near = difflib.get_close_matches(name, [*VARIABLES, *OTHER_VARIABLES], n=1)
    return f"; perhaps {near[0]} is meant" if near else ""
