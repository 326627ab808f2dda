"""Reading the configuration: parses each value, then checks those that depend on others."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from md5light.config.keys import SECTIONS, USER_AGENT, Config
from md5light.config.public import DEFAULTS, SOURCE
from md5light.config.sources import Setting, Settings, in_environment, in_file, wrong
from md5light.config.values import absolute

#: the file that is read when neither --config nor $MD5LIGHT_CONFIG names one
DEFAULT_FILE = Path("/etc/md5light/config.ini")

PASSWORD, PASSWORD_FILE = ("smtp", "password"), ("smtp", "password_file")


def load(
    path: str | None = None,
    environ: Mapping[str, str] = os.environ,
    default_file: Path = DEFAULT_FILE,
) -> Config:
    """Read the configuration: the environment overrides the file, the file the defaults.

    The file is `path`, else $MD5LIGHT_CONFIG, else `default_file`. Relative paths in it and in the
    defaults start at its folder; without a file, and in the environment, they start at the working
    directory. Raises ConfigError, one line, if anything is unknown or wrong.
    """
    file = find(path, environ, default_file)
    folder = file.parent if file else Path()
    settings = _merged(in_file(file) if file else {}, in_environment(environ))
    if _section("server", settings, folder).public:
        settings = {**_public_defaults(folder), **settings}
    sections = {name: _section(name, settings, folder) for name in SECTIONS}
    sources = {key: setting.source for key, setting in settings.items()}
    config = Config(**sections, sources=sources)
    for section in ("download", "smtp"):
        _check_certificates(settings.get((section, "ca_file")), section, sections[section].ca_file)
    return _with_password(_with_user_agent(config), environ)


def find(
    path: str | None, environ: Mapping[str, str] = os.environ, default_file: Path = DEFAULT_FILE
) -> Path | None:
    """Return the file that `load` reads, None if there is none."""
    named = path or environ.get("MD5LIGHT_CONFIG")
    if named:
        return Path(named)
    try:
        default_file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # e.g. no permission for the folder: reading reports it, defaults would hide it
        return default_file
    return default_file


def _merged(file: Settings, environment: Settings) -> Settings:
    """Override the file by the environment, and its password in both forms by either form."""
    if PASSWORD in environment or PASSWORD_FILE in environment:
        file = {key: file[key] for key in file if key not in (PASSWORD, PASSWORD_FILE)}
    return {**file, **environment}


def _public_defaults(folder: Path) -> Settings:
    return {key: Setting(text, SOURCE, folder) for key, text in DEFAULTS.items()}


def _section(name: str, settings: Settings, folder: Path) -> Any:
    values = {}
    for field in dataclasses.fields(SECTIONS[name]):
        default = Setting(field.metadata["default"], "the defaults", folder)
        setting = settings.get((name, field.name), default)
        try:
            value = field.metadata["read"](setting.text)
            if field.metadata["path"]:
                value = absolute(value, setting.folder)
        except ValueError as error:
            raise wrong(setting, name, field.name, str(error)) from None
        values[field.name] = value
    return SECTIONS[name](**values)


def _check_certificates(setting: Setting | None, section: str, ca_file: str) -> None:
    if not setting or not ca_file:
        return
    import ssl  # it takes longer than reading a configuration

    named = setting._replace(text=ca_file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except ssl.SSLError:
        raise wrong(named, section, "ca_file", "holds no certificate in PEM form") from None
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
        raise wrong(named, section, "ca_file", problem) from None


def _with_user_agent(config: Config) -> Config:
    """Add the service's address to the default User-Agent, so that its operator can be found."""
    if config.download.user_agent != USER_AGENT or not config.server.base_url:
        return config
    user_agent = f"{USER_AGENT} (+{config.server.base_url})"
    download = dataclasses.replace(config.download, user_agent=user_agent)
    return dataclasses.replace(config, download=download)


def _with_password(config: Config, environ: Mapping[str, str]) -> Config:
    """Read the password from its file, or from systemd's LoadCredential=.

    Then `password_file` names the file that was read.
    """
    smtp = config.smtp
    file = smtp.password_file or ("" if smtp.password else _credential(environ))
    if not file:
        return config
    source = config.sources.get(PASSWORD_FILE, "environment")
    setting = Setting(file, source, Path())
    if smtp.password:
        raise wrong(setting, *PASSWORD_FILE, "password is set too; keep one of them")
    password = _first_line(setting, _credential(environ))
    smtp = dataclasses.replace(smtp, password=password, password_file=file)
    sources = {**config.sources, PASSWORD: file}
    return dataclasses.replace(config, smtp=smtp, sources=sources)


def _credential(environ: Mapping[str, str]) -> str:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    file = Path(folder or "") / "smtp-password"
    return str(file) if folder and os.path.lexists(file) else ""


def _first_line(setting: Setting, credential: str) -> str:
    """Read a password; if that fails and there is a `credential` of systemd, point to it."""
    try:
        return Path(setting.text).read_text(encoding="utf-8-sig").partition("\n")[0]
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
        if credential not in ("", setting.text):
            problem += "; leave it out, since systemd hands the password over as a credential"
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    raise wrong(setting, *PASSWORD_FILE, problem)
