"""The INI file: which one is read, what its values mean, and what is said of a wrong one."""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme

from md5light import __version__, config
from md5light.config import SECTIONS, Config
from md5light.errors import ConfigError

EXAMPLE = Path(__file__).parent.parent / "config.example.ini"

#: loads a configuration from its text
Load = Callable[[str], Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a configuration from its text."""

    def load(text: str) -> Config:
        file = tmp_path / "config.ini"
        file.write_text(text, encoding="utf-8")
        return config.load(str(file), {})

    return load


def error_of(load: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        load()
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message


def port_file(file: Path, port: int) -> Path:
    file.write_text(f"[server]\nport = {port}\n")
    return file


# --- which file -----------------------------------------------------------------------------------


def test_a_named_file_goes_before_the_environment_and_that_before_etc(tmp_path: Path) -> None:
    named = port_file(tmp_path / "named.ini", 1001)
    environ = {"MD5LIGHT_CONFIG": str(port_file(tmp_path / "environ.ini", 1002))}
    etc = port_file(tmp_path / "etc.ini", 1003)
    assert config.load(str(named), environ, etc).server.port == 1001
    assert config.load(None, environ, etc).server.port == 1002
    assert config.load(None, {}, etc).server.port == 1003
    assert config.load(None, {}, tmp_path / "none.ini").server.port == 8080


def test_the_default_file_is_in_etc() -> None:
    assert Path("/etc/md5light/config.ini") == config.DEFAULT_FILE


def test_an_empty_variable_names_no_file(tmp_path: Path) -> None:
    assert config.find(None, {"MD5LIGHT_CONFIG": ""}, tmp_path / "none.ini") is None


def test_without_a_folder_in_etc_the_defaults_apply(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert config.find(None, {}, tmp_path / "none" / "config.ini") is None
    assert config.find(None, {}, tmp_path / "file" / "config.ini") is None


def test_a_default_file_that_can_not_be_followed_is_not_passed_over(tmp_path: Path) -> None:
    dangling, loop, long = tmp_path / "dangling.ini", tmp_path / "loop", tmp_path / ("x" * 300)
    dangling.symlink_to("nowhere.ini")
    loop.symlink_to("loop")
    for file in (dangling, loop, loop / "config.ini", long):
        assert "can't be read" in error_of(partial(config.load, None, {}, file))


def test_a_file_that_can_not_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    expected = {
        "none.ini": "can't be read: No such file or directory",
        "": "can't be read: Is a directory",
        "socket": "can't be read: No such device or address",
        "socket/config.ini": "can't be read: Not a directory",
    }
    for name, reason in expected.items():
        file = tmp_path / name
        assert error_of(partial(config.load, str(file), {})) == f"{file}: {reason}"


@pytest.mark.parametrize(
    "content", [b"\xff\xfe[\x00s\x00", b"[server]\nhost = \xe9\n", b"\x7fELF\x02\x80"]
)
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.ini"
    file.write_bytes(content)
    assert error_of(lambda: config.load(str(file), {})) == f"{file}: is not UTF-8 text"


# --- what is in it --------------------------------------------------------------------------------


def test_an_empty_file_is_the_defaults(load: Load) -> None:
    assert load("# nothing\n").server == Config().server


def test_a_byte_order_mark_and_windows_line_ends_are_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "config.ini"
    file.write_bytes(b"\xef\xbb\xbf[server]\r\nport = 81\r\nhost = ::1\r\n")
    server = config.load(str(file), {}).server
    assert (server.port, server.host) == (81, "::1")


def test_percent_and_dollar_are_themselves(load: Load) -> None:
    smtp = load("[smtp]\npassword = 100%(host)s$HOME${host}%%\nmaildir = %d/$x\n").smtp
    assert smtp.password == "100%(host)s$HOME${host}%%"
    assert smtp.maildir.endswith("/%d/$x")


def test_signs_of_comments_within_a_value_belong_to_it(load: Load) -> None:
    assert load("[smtp]\npassword = a#b ; c = d: e\n").smtp.password == "a#b ; c = d: e"


@pytest.mark.parametrize(
    "written", ["10.0.0.0/8 fd00::/8", "10.0.0.0/8,fd00::/8", " 10.0.0.0/8 ,\n  fd00::/8,"]
)
def test_lists_are_separated_by_spaces_or_commas(load: Load, written: str) -> None:
    download = load(f"[download]\nallow_networks = {written}\n").download
    assert download.allow_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def test_ports_are_single_or_ranges_that_include_both_ends(load: Load) -> None:
    ports = load("[download]\nallow_ports = 443, 8000-8002\n").download.allow_ports
    assert [port for port in (80, 443, 7999, 8000, 8001, 8002, 8003) if port in ports] == [
        443,
        8000,
        8001,
        8002,
    ]


def test_a_proxy_is_trusted_by_its_address_or_its_network(load: Load) -> None:
    server = load("[server]\ntrusted_proxy = 127.0.0.1, 172.18.0.0/16 ::1\n").server
    assert server.trusted_proxy == tuple(map(ip_network, ("127.0.0.1", "172.18.0.0/16", "::1")))
    assert load("").server.trusted_proxy == ()


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("md5@example.org", "md5@example.org"),
        ("MD5 sums <md5@example.org>", "md5@example.org"),
        ('"Müller, Ä." <md5@example.org>', "md5@example.org"),
        ("<md5@example.org>", "md5@example.org"),
    ],
)
def test_a_sender_may_have_a_name(load: Load, written: str, address: str) -> None:
    smtp = load(f"[smtp]\nsender = {written}\nreply_to = {written}\n").smtp
    assert (smtp.sender, smtp.sender_address, smtp.reply_to) == (written, address, written)


@pytest.mark.parametrize("name", ["", "mail", "mail.example.org", "[192.0.2.1]", "[IPv6:::1]"])
def test_the_name_in_ehlo_is_a_host_or_an_address_in_brackets(load: Load, name: str) -> None:
    assert load(f"[smtp]\nhelo_name = {name}\n").smtp.helo_name == name


@pytest.mark.parametrize(
    ("section", "user_agent"),
    [
        ("", f"md5light/{__version__}"),
        ("[server]\nbase_url = https://a.org/\n", f"md5light/{__version__} (+https://a.org)"),
        (
            f"[server]\nbase_url = https://a.org\n[download]\nuser_agent = md5light/{__version__}",
            f"md5light/{__version__} (+https://a.org)",
        ),
        ("[server]\nbase_url = https://a.org\n[download]\nuser_agent = curl", "curl"),
    ],
)
def test_the_default_user_agent_tells_the_base_url(
    load: Load, section: str, user_agent: str
) -> None:
    assert load(section).download.user_agent == user_agent


@pytest.mark.parametrize(
    ("written", "value"), [("yes", True), ("ON", True), ("1", True), ("no", False), ("0", False)]
)
def test_yes_and_no(load: Load, written: str, value: bool) -> None:
    assert load(f"[smtp]\nlocal_domains = {written}\n").smtp.local_domains is value


@pytest.mark.parametrize(
    ("section", "key", "low", "high"),
    [
        ("server", "port", "0", "65535"),
        ("server", "threads", "1", "1000"),
        ("server", "submits_per_minute", "0", "1000000000"),
        ("server", "max_batch_lines", "0", "10000000"),
        ("server", "max_batch_bytes", "1", "1000000000000"),
        ("server", "max_unfinished_batches", "1", "1000000"),
        ("queue", "lease_seconds", "1", "86400"),
        ("queue", "retry_seconds", "0", "3600"),
        ("worker", "processes", "1", "1000"),
        ("worker", "per_host", "0", "1000000"),
        ("download", "max_bytes", "0", "1000000000000000000"),
        ("download", "max_redirects", "0", "100"),
        ("smtp", "port", "1", "65535"),
        ("smtp", "attach_bytes", "0", "1000000000"),
    ],
)
def test_the_ends_of_a_range_belong_to_it(
    load: Load, section: str, key: str, low: str, high: str
) -> None:
    for value in (low, high):
        assert getattr(getattr(load(f"[{section}]\n{key} = {value}\n"), section), key) == int(value)
    for value in (str(int(low) - 1), str(int(high) + 1)):
        message = error_of(partial(load, f"[{section}]\n{key} = {value}\n"))
        assert f"[{section}] {key} = {value}: must be a" in message
        assert message.endswith(f"from {low} to {high}") or "e+" in message


@pytest.mark.parametrize(
    ("section", "key", "value", "problem"),
    [
        ("server", "host", "", "must be a host name or an IP address"),
        ("server", "host", "a b", "must be a host name or an IP address"),
        ("server", "port", "", "must be a whole number from 0 to 65535"),
        ("server", "port", "http", "must be a whole number from 0 to 65535"),
        ("server", "port", "80.5", "must be a whole number from 0 to 65535"),
        ("server", "port", "8_0", "must be a whole number from 0 to 65535"),
        ("server", "port", "٨٠", "must be a whole number from 0 to 65535"),
        ("server", "port", "9" * 5000, "must be a whole number from 0 to 65535"),
        ("server", "port", "80 ; the usual one", "must be a whole number from 0 to 65535"),
        ("server", "base_url", "md5.example.org", "must be a URL such as https://md5.example.org"),
        (
            "server",
            "base_url",
            "ftp://example.org",
            "must be a URL such as https://md5.example.org",
        ),
        (
            "server",
            "base_url",
            "http://example.org/?a",
            "must be a URL such as https://md5.example.org",
        ),
        (
            "server",
            "trusted_proxy",
            "10.0.0.1 proxy.example.org",
            "must be networks such as 10.0.0.0/8 or fd00::/8; 'proxy.example.org' is not one",
        ),
        ("server", "host", "unix:http.sock", "must be unix: and an absolute path, such as"),
        ("server", "host", "unix:", "must be unix: and an absolute path, such as"),
        ("server", "host", "unix:/run/", "must be unix: and an absolute path, such as"),
        ("server", "host", f"unix:/{'s' * 107}", "must be a path of at most 107 bytes"),
        ("server", "base_url", "https://é.org", "must be a URL such as https://md5.example.org"),
        ("queue", "database", "", "must be a file or postgresql://…"),
        ("queue", "database", "mysql://db", "must be a file or postgresql://…"),
        (
            "queue",
            "database",
            "~nobody-at-all/db",
            "names the home folder of nobody on this machine",
        ),
        ("queue", "lease_seconds", "1m", "must be a number from 1 to 86400"),
        ("queue", "lease_seconds", "nan", "must be a number from 1 to 86400"),
        ("queue", "lease_seconds", "inf", "must be a number from 1 to 86400"),
        ("queue", "lease_seconds", "1e2", "must be a number from 1 to 86400"),
        (
            "download",
            "allow_networks",
            "10.0.0.1/8",
            "must be networks such as 10.0.0.0/8 or fd00::/8; '10.0.0.1/8'",
        ),
        (
            "download",
            "allow_networks",
            "::/0 lan",
            "must be networks such as 10.0.0.0/8 or fd00::/8; 'lan' is not",
        ),
        ("download", "allow_ports", "", "must name at least one port"),
        (
            "download",
            "allow_ports",
            "0",
            "must be ports from 1 to 65535 or ranges such as 8000-8999; '0' is neither",
        ),
        (
            "download",
            "allow_ports",
            "9-8",
            "must be ports from 1 to 65535 or ranges such as 8000-8999; '9-8'",
        ),
        (
            "download",
            "allow_ports",
            "80 65536",
            "must be ports from 1 to 65535 or ranges such as 8000-8999; '65536'",
        ),
        ("download", "user_agent", "", "must be printable ASCII characters"),
        ("download", "user_agent", "é", "must be printable ASCII characters"),
        ("smtp", "security", "ssl", "must be one of: starttls, tls, none"),
        ("smtp", "sender", "md5light", "must be a plain mail address such as md5light@example.org"),
        (
            "smtp",
            "sender",
            "md5..light@b.c",
            "must be a plain mail address such as md5light@example.org",
        ),
        (
            "smtp",
            "sender",
            "md5light@b.c.",
            "must be a plain mail address such as md5light@example.org",
        ),
        (
            "smtp",
            "sender",
            "=?utf-8?q?md5?=@b.c",
            "must be a plain mail address such as md5light@example.org",
        ),
        (
            "smtp",
            "sender",
            "A <a b@b.c>",
            "must be a plain mail address such as md5light@example.org",
        ),
        (
            "smtp",
            "sender",
            "😀@example.org",
            "must be a plain mail address such as md5light@example.org",
        ),
        ("smtp", "sender", "A <a@b.c> B", "must be a plain mail address such as"),
        ("smtp", "sender", '"A"B" <a@b.c>', "must be a plain mail address such as"),
        ("smtp", "sender", "A <b@c.d> <a@b.c>", "must be a plain mail address such as"),
        ("smtp", "sender", "", "must be a plain mail address such as"),
        ("smtp", "reply_to", "help", "must be a plain mail address such as"),
        ("smtp", "helo_name", "mail example", "must be a host name in ASCII or an address in"),
        ("smtp", "helo_name", "mail.", "must be a host name in ASCII or an address in brackets"),
        ("smtp", "give_up_days", "-1", "must be a number from 0 to 365"),
        ("download", "first_byte_timeout", "0", "must be a number from 0.001 to 3600"),
        ("download", "min_bytes_per_second", "-1", "must be a whole number from 0 to 1000000000"),
        ("smtp", "max_attempts", "10", "unknown key"),
        ("smtp", "username", "a\tb", "must be one line without control characters"),
        ("smtp", "maildir", "", "must be a path"),
        ("smtp", "local_domains", "maybe", "must be yes or no"),
        ("log", "level", "INFO", "must be one of: debug, info, warning, error"),
        ("log", "format", "xml", "must be one of: text, json"),
        ("worker", "prozesses", "4", "unknown key"),
        ("server", "users", "4", "unknown key"),
    ],
)
def test_a_wrong_value_is_shown_with_its_place(
    load: Load, tmp_path: Path, section: str, key: str, value: str, problem: str
) -> None:
    message = error_of(lambda: load(f"[{section}]\n{key} = {value}\n"))
    shown = " ".join(value.split())
    assert message.startswith(f"{tmp_path}/config.ini: [{section}] {key} = {shown}: {problem}")


def test_a_wrong_value_of_several_lines_is_told_on_one(load: Load) -> None:
    message = error_of(lambda: load("[smtp]\nusername = a\n  b\n"))
    assert message.endswith("[smtp] username = a b: must be one line without control characters")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[sever]\n",
            "[sever]: unknown section; there are server, queue, worker, download, smtp, log",
        ),
        (
            "[Server]\n",
            "[Server]: unknown section; there are server, queue, worker, download, smtp, log",
        ),
        (
            "[DEFAULT]\nport = 1\n",
            "[DEFAULT]: unknown section; there are server, queue, worker, download, smtp, log",
        ),
        ("[server]\nport = 1\nPort = 2\n", "line 3: [server] port: key given twice"),
        ("[log]\n[server]\n[log]\n", "line 3: [log]: section given twice"),
        ("port = 1\n[server]\n", "line 1: stands before the first [section]"),
        ("[server]\n\nport\n", "line 3: is neither [section] nor key = value"),
        ("[server\nport = 1\n", "line 1: stands before the first [section]"),
        ("\0\0\0", "line 1: stands before the first [section]"),
    ],
)
def test_a_file_of_wrong_form_is_told_with_the_line(
    load: Load, tmp_path: Path, text: str, problem: str
) -> None:
    assert error_of(lambda: load(text)) == f"{tmp_path}/config.ini: {problem}"


# --- paths ----------------------------------------------------------------------------------------


def test_relative_paths_start_at_the_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "config.ini").write_text(
        "[queue]\ndatabase = ../jobs\n[smtp]\nmaildir = /var/mail/md5\n"
    )
    monkeypatch.chdir(tmp_path)
    loaded = config.load("etc/config.ini", {})
    assert Path(loaded.queue.database).resolve() == tmp_path / "jobs"
    assert Path(loaded.queue.database).is_absolute()
    assert loaded.smtp.maildir == "/var/mail/md5"


def test_a_path_that_the_file_leaves_out_starts_there_too(load: Load, tmp_path: Path) -> None:
    assert load("").queue.database == f"{tmp_path}/md5light.sqlite3"


def test_without_a_file_paths_start_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = config.load(None, {}, tmp_path / "none.ini")
    assert loaded.queue.database == f"{tmp_path}/md5light.sqlite3"
    assert loaded.smtp.maildir == f"{tmp_path}/md5light-mail"
    assert loaded.download.ca_file == ""


def test_a_home_folder_may_be_named(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/mine")
    assert load("[queue]\ndatabase = ~/jobs\n").queue.database == "/home/of/mine/jobs"


def test_the_url_of_a_database_is_no_path(load: Load) -> None:
    assert load("[queue]\ndatabase = postgresql://db/md5\n").queue.database == "postgresql://db/md5"


def test_a_ca_file_is_checked(load: Load, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "empty.pem").touch()
    for section in ("download", "smtp"):
        assert (
            getattr(load(f"[{section}]\nca_file = ca.pem\n"), section).ca_file
            == f"{tmp_path}/ca.pem"
        )
        for name, problem in {
            "empty.pem": "holds no certificate in PEM form",
            "none.pem": "can't be read: No such file or directory",
            ".": "can't be read: Is a directory",
        }.items():
            message = error_of(partial(load, f"[{section}]\nca_file = {name}\n"))
            assert (
                message
                == f"{tmp_path}/config.ini: [{section}] ca_file = {tmp_path / name}: {problem}"
            )


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[smtp]\npassword = hunter2\n  and more\n",
        "[smtp]\npasword = hunter2\n",
        "[smtp]\npwd = hunter2\n",
        "[server]\nsmtp_password = hunter2\n",
        "[smtp]\npassword hunter2\n",
        "password = hunter2\n",
        "[smtp]\npassword = hunter2\npassword = hunter2\n",
        "[queue]\ndatabase = mysql://md5:hunter2@db/md5\n",
        "[server]\nbase_url = https://md5:hunter2@example.org\n",
    ],
)
def test_an_error_tells_no_password(load: Load, text: str) -> None:
    assert "hunter2" not in error_of(lambda: load(text))


@pytest.mark.parametrize(
    "text",
    [
        "[smtp]\npassword = hunter2\n",
        "[queue]\ndatabase = postgresql://md5:hunter2@db/md5\n",
        "[queue]\ndatabase = postgresql://md5:%2Fhunter2@db/md5\n",
        "[queue]\ndatabase = postgresql:///md5?user=md5&password=hunter2&sslmode=require\n",
        "[queue]\ndatabase = postgresql:///md5?sslpassword=hunter2&oauth_client_secret=hunter2\n",
    ],
)
def test_a_shown_configuration_tells_no_password(load: Load, text: str) -> None:
    shown = config.show(load(text))
    assert "hunter2" not in shown
    assert config.MASK in shown


def test_a_path_of_a_password_is_no_secret(load: Load) -> None:
    assert "password_file = none" in error_of(lambda: load("[server]\npassword_file = none\n"))


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"\xef\xbb\xbfhunter2\r\nmore\r\n", "hunter2"),
        ("pä$s %wörd \n".encode(), "pä$s %wörd "),
    ],
)
def test_the_first_line_of_password_file_is_the_password(
    load: Load, tmp_path: Path, content: bytes, password: str
) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert load("[smtp]\npassword_file = secret\n").smtp.password == password


def test_a_password_file_that_is_no_use_is_named(load: Load, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, problem in {
        "none": "can't be read: No such file or directory",
        ".": "can't be read: Is a directory",
        "binary": "is not UTF-8 text",
    }.items():
        message = error_of(partial(load, f"[smtp]\npassword_file = {name}\n"))
        assert (
            message == f"{tmp_path}/config.ini: [smtp] password_file = {tmp_path / name}: {problem}"
        )


def test_a_password_file_beside_systemds_credential_is_explained(tmp_path: Path) -> None:
    (tmp_path / "smtp-password").write_text("\n")
    (tmp_path / "config.ini").write_text("[smtp]\npassword_file = /root/none\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    message = error_of(lambda: config.load(str(tmp_path / "config.ini"), environ))
    assert message.endswith("leave it out, since systemd hands the password over as a credential")


def test_password_and_password_file_exclude_each_other(load: Load) -> None:
    message = error_of(lambda: load("[smtp]\npassword = hunter2\npassword_file = secret\n"))
    assert message.endswith("password is set too; keep one of them")
    assert "hunter2" not in message


def test_the_credential_is_the_password_when_the_file_names_none(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "smtp-password").write_text("from systemd\n")
    (tmp_path / "secret").write_text("from a file\n")
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}

    def password(text: str) -> str:
        file = tmp_path / "config.ini"
        file.write_text(text)
        return config.load(str(file), environ).smtp.password

    assert password("") == "from systemd"
    assert password("[smtp]\npassword = given\n") == "given"
    assert password("[smtp]\npassword_file = secret\n") == "from a file"
    assert config.load(None, environ, tmp_path / "none.ini").smtp.password == "from systemd"


def test_a_credential_that_is_not_there_is_no_error_but_one_that_can_not_be_read_is(
    tmp_path: Path,
) -> None:
    def load() -> Config:
        return config.load(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, tmp_path / "none.ini")

    assert load().smtp.password == ""
    (tmp_path / "smtp-password").mkdir()
    assert error_of(load) == (
        f"environment: [smtp] password_file = {tmp_path}/smtp-password:"
        " can't be read: Is a directory"
    )


# --- the environment ------------------------------------------------------------------------------


@pytest.fixture
def load_with(tmp_path: Path) -> Callable[..., Config]:
    """Loads a configuration from its text and the environment."""

    def load_with(text: str, **environ: str) -> Config:
        file = tmp_path / "config.ini"
        file.write_text(text, encoding="utf-8")
        return config.load(str(file), environ)

    return load_with


def test_a_variable_beats_the_file(load_with: Callable[..., Config]) -> None:
    text = "[server]\nport = 1001\nthreads = 3\n"
    loaded = load_with(text, MD5LIGHT_SERVER_PORT="1002", MD5LIGHT_DOWNLOAD_MAX_BYTES=" 5\n")
    assert (loaded.server.port, loaded.server.threads, loaded.download.max_bytes) == (1002, 3, 5)


def test_every_key_has_a_variable_and_a_file(tmp_path: Path) -> None:
    written = config.show(Config()).replace("\n\n", "\n").splitlines()[1:]
    section = ""
    for number, line in enumerate(written):
        if line.startswith("["):
            section = line.strip("[]")
            continue
        key, _, value = line.partition(" =")
        name = f"MD5LIGHT_{section}_{key}".upper()
        direct = config.load(None, {name: value}, tmp_path / "none.ini")
        assert direct.sources == {(section, key): name}
        file = tmp_path / f"{number}"
        file.write_text(f"{value}\n")
        named = config.load(None, {f"{name}_FILE": str(file)}, tmp_path / "none.ini")
        source = "PASSWORD_FILE" if key == "password" else f"{key}_FILE".upper()
        assert set(named.sources.values()) >= {f"MD5LIGHT_{section.upper()}_{source}"}
        assert (named, direct) == (Config(), Config()) or key == "password"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("MD5LIGHT_SERVER_PORT", "http", "[server] port = http: must be a whole number from 0"),
        ("MD5LIGHT_SERVER_PORT", "", "[server] port = : must be a whole number from 0 to 65535"),
        ("MD5LIGHT_SERVER_PORT", "80\n81", "[server] port = 80 81: must be a whole number"),
        ("MD5LIGHT_SMTP_USERNAME", "a\nb", "[smtp] username = a b: must be one line without"),
        ("MD5LIGHT_SMTP_USERNAME", "a\udcffb", "is not UTF-8 text"),
        ("MD5LIGHT_SMTP_CA_FILE", "/none", "[smtp] ca_file = /none: can't be read: No such file"),
        ("MD5LIGHT_SMTP_PASSWORD_FILE", "/none", "[smtp] password_file = /none: can't be read"),
        ("MD5LIGHT_SERVER_PORT_FILE", "/none", "/none: can't be read: No such file or directory"),
        ("MD5LIGHT_SERVER_PORT_FILE", "", ": can't be read: Is a directory"),
        ("MD5LIGHT_SERVER_PROT", "1", "unknown variable; perhaps MD5LIGHT_SERVER_PORT is meant"),
        ("MD5LIGHT_SMTP_PASWORD", "hunter2", "unknown variable; perhaps MD5LIGHT_SMTP_PASSWORD"),
        ("MD5LIGHT_server_port", "1", "unknown variable"),
        ("MD5LIGHT_", "1", "unknown variable"),
        ("MD5LIGHT_CONFIG_FILE", "1", "unknown variable"),
        ("MD5LIGHT_QUEUE_DATABASE_FILE", "postgresql://md5:hunter2@db/md5", "postgresql://****"),
    ],
)
def test_a_wrong_variable_is_told_with_its_name(
    load_with: Callable[..., Config], name: str, value: str, problem: str
) -> None:
    message = error_of(lambda: load_with("", **{name: value}))
    assert message.startswith(f"{name}: {problem}")
    assert "hunter2" not in message


def test_a_file_that_a_variable_names_is_read_as_strictly(
    load_with: Callable[..., Config], tmp_path: Path
) -> None:
    file = tmp_path / "value"
    for content, problem in {
        b"http\n": "MD5LIGHT_SERVER_PORT_FILE: [server] port = http: must be a whole number",
        b"\xff\xfe": f"MD5LIGHT_SERVER_PORT_FILE: {file}: is not UTF-8 text",
        b"": "MD5LIGHT_SERVER_PORT_FILE: [server] port = : must be a whole number",
    }.items():
        file.write_bytes(content)
        message = error_of(partial(load_with, "", MD5LIGHT_SERVER_PORT_FILE=str(file)))
        assert message.startswith(problem)
    file.write_bytes(b"\xef\xbb\xbf81\r\n")
    assert load_with("", MD5LIGHT_SERVER_PORT_FILE=str(file)).server.port == 81


@pytest.mark.parametrize("key", ["SERVER_PORT", "SMTP_PASSWORD_FILE", "QUEUE_DATABASE"])
def test_one_key_is_set_in_one_form(
    load_with: Callable[..., Config], tmp_path: Path, key: str
) -> None:
    names = (f"MD5LIGHT_{key}", f"MD5LIGHT_{key}_FILE")
    (tmp_path / "value").write_text("80")
    environ = dict.fromkeys(names, str(tmp_path / "value"))
    message = error_of(lambda: load_with("", **environ))
    assert message == f"{names[1]}: {names[0]} is set, too; keep one of them"


def test_the_names_of_the_file_and_of_the_clients_server_are_no_keys(
    load_with: Callable[..., Config],
) -> None:
    environ = {"MD5LIGHT_CONFIG": "x", "MD5LIGHT_SERVER": "http://localhost", "HOME": "/"}
    assert load_with("", **environ).server == Config().server


def test_a_password_in_the_environment_beats_both_forms_in_the_file(
    load_with: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    file = str(tmp_path / "secret")
    for text in ("password = in the file", "password_file = none"):
        section = f"[smtp]\n{text}\n"
        assert load_with(section, MD5LIGHT_SMTP_PASSWORD="given").smtp.password == "given"
        loaded = load_with(section, MD5LIGHT_SMTP_PASSWORD_FILE=file)
        assert (loaded.smtp.password, loaded.smtp.password_file) == ("from a file", file)
    environ = {"MD5LIGHT_SMTP_PASSWORD": "given", "MD5LIGHT_SMTP_PASSWORD_FILE": file}
    message = error_of(lambda: load_with("", **environ))
    assert message.endswith("password is set too; keep one of them")


def test_a_path_in_the_environment_starts_at_the_working_directory(
    load_with: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load_with("[smtp]\nmaildir = mails\n", MD5LIGHT_QUEUE_DATABASE="jobs")
    assert loaded.queue.database == f"{tmp_path}/elsewhere/jobs"
    assert loaded.smtp.maildir == f"{tmp_path}/mails"


def test_show_tells_where_a_value_stands(load_with: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    shown = config.show(
        load_with(
            "[server]\nport = 81\n[smtp]\npassword_file = secret\n",
            MD5LIGHT_SERVER_THREADS="2",
        )
    )
    assert f"\n# from {tmp_path}/config.ini\nport = 81\n" in shown
    assert "\n# from MD5LIGHT_SERVER_THREADS\nthreads = 2\n" in shown
    assert f"\n# from {tmp_path}/secret\npassword = ********\n" in shown
    assert "\nbase_url =\n" in shown
    assert shown.count("# from ") == 4


# --- the URL of a database ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql:///md5",
        "postgresql://db",
        "postgresql://md5@db/md5",
        "postgresql://md5:secret@db:5432/md5",
        "postgresql://md5:se:cr+et@db/md5",
        "postgresql://md5:%25%23%2F%40%C3%A4@db/md5",
        "postgresql://md5:pässwörd@db/md5",
        "postgresql://[::1]:5432,db2,[fe80::1]/md5",
        "postgresql://one:1,two:2/md5?target_session_attrs=read-write",
        "postgresql://%2Frun%2Fpostgresql/md5",
        "postgresql:///md5?host=/run/postgresql&user=md5&passfile=/etc/pgpass&ssl=true",
        "postgresql://db/md5?options=-csearch_path%3Dmd5light",
        "postgresql://db/md5?",
    ],
)
def test_the_url_of_a_database_is_kept(load: Load, url: str) -> None:
    assert load(f"[queue]\ndatabase = {url}\n").queue.database == url


@pytest.mark.parametrize("scheme", ["postgres", "PostgreSQL", "POSTGRES", "postgresql"])
def test_the_schemes_of_postgresql(load: Load, scheme: str) -> None:
    loaded = load(f"[queue]\ndatabase = {scheme}://db/md5\n")
    assert loaded.queue.database == "postgresql://db/md5"


ENCODE = "is not a URL that PostgreSQL takes; percent-encode what is special in a password"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("postgresql://u:hunter2%zz@h/db", ENCODE),
        ("postgresql://u:hunter2%@h/db", ENCODE),
        ("postgresql://u:hunter2%00@h/db", ENCODE),
        ("postgresql://u:hunter2%ff@h/db", ENCODE),
        ("postgresql://u:hunter2%zz@h/db?sslmode=require", ENCODE),
        ("postgres://u:hunter2#w@h/db", ENCODE),
        ("postgresql://u:hun#ter2@h/db", ENCODE),
        ("postgresql://u:hunter2@h/db#hunter2", ENCODE),
        ("postgresql://u:hunter2/w@h/db", ENCODE),
        ("postgresql://u:12/hunter2@h/db", ENCODE),
        ("postgresql://u:hunter2?w@h/db", ENCODE),
        ("postgresql://u:1?hunter2@h/db", ENCODE),
        ("postgresql://u:1?hunter=w@h/db", "has a parameter that PostgreSQL does not know"),
        ("postgresql://u:hunter2@w@h/db", ENCODE),
        ("postgresql://u:hunter2@ss#w/rd@h/db", ENCODE),
        ("postgresql://u:hunter2 w@h/db", ENCODE),
        ("postgresql://u:hunter2/db", ENCODE),
        ("postgresql://h:123456/db", ENCODE),
        ("postgresql://h/db?password=hunter2%zz", ENCODE),
        ("postgresql://h/db?password=hunter2&hunter2", ENCODE),
        ("postgresql://h/db?password=hunter2=w", ENCODE),
        (
            "postgresql://u:hunter2@h/db?sslmod=require",
            "has a parameter that PostgreSQL does not know; perhaps sslmode is meant",
        ),
        (
            "postgresql://h/db?pasword=hunter2",
            "has a parameter that PostgreSQL does not know; perhaps password is meant",
        ),
        ("host=/run/postgresql dbname=x", "must be written as a URL: postgresql://USER@HOST/NAME"),
        ("dbname=x pasword=hunter2", "must be written as a URL: postgresql://USER@HOST/NAME"),
        ("password = 'hunter2'", "must be written as a URL: postgresql://USER@HOST/NAME"),
        ('"postgresql://u:hunter2@h/db"', "must be a file or postgresql://…"),
        ("postgresql+psycopg://u:hunter2@h/db", "must be a file or postgresql://…"),
        ("mysql://u:hunter2@h/db", "must be a file or postgresql://…"),
    ],
)
def test_a_wrong_url_of_a_database_is_told_without_its_text(
    load: Load, load_with: Callable[..., Config], tmp_path: Path, value: str, problem: str
) -> None:
    in_file = error_of(lambda: load(f"[queue]\ndatabase = {value}\n"))
    in_environment = error_of(lambda: load_with("", MD5LIGHT_QUEUE_DATABASE=value))
    for message in (in_file, in_environment):
        assert re.search(rf"\[queue\] database = .*: {re.escape(problem)}", message)
        assert not re.search("hun|ter2|#w|rd@|db2", message)


# --- showing, and the example file ----------------------------------------------------------------


def test_what_is_shown_reads_the_same(load: Load) -> None:
    loaded = load(
        "[server]\nhost = ::1\nbase_url = https://md5.example.org/\n"
        "trusted_proxy = 10.0.0.1 fd00::/8\n"
        "[queue]\nretry_seconds = 0.00001\nlease_seconds = 86399.7\nretention_days = 30\n"
        "[download]\nallow_networks = 10.0.0.0/8,fd00::/8\nallow_ports = 443 8000-8002\n"
        "user_agent = 100% $me\n"
        "[smtp]\nhost = mail.example.org\nsender = Müller, Ä <md5@example.org>\n"
        "local_domains = yes\nusername = ä\n"
        "[log]\nlevel = debug\nformat = json\n"
    )
    assert load(config.show(loaded)) == loaded


@pytest.mark.parametrize(
    ("host", "port", "base_url", "public_url"),
    [
        ("127.0.0.1", 8080, "", "http://127.0.0.1:8080"),
        ("::1", 80, "", "http://[::1]:80"),
        ("unix:/run/md5light.sock", 80, "", "http://localhost"),
        ("unix:/run/md5light.sock", 80, "https://md5.example.org", "https://md5.example.org"),
        ("::1", 80, "https://md5.example.org/sums/", "https://md5.example.org/sums"),
    ],
)
def test_the_public_url(load: Load, host: str, port: int, base_url: str, public_url: str) -> None:
    text = f"[server]\nhost = {host}\nport = {port}\nbase_url = {base_url}\n"
    assert load(text).server.public_url == public_url


def test_the_example_is_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(EXAMPLE.parent)  # where relative paths start, with and without the file
    assert config.load(str(EXAMPLE), {}) == config.load(None, {}, tmp_path / "none.ini")


def test_the_example_holds_every_key_in_order_with_its_default_and_its_meaning() -> None:
    found = re.findall(
        r"^\[(\w+)\]$|((?:^#.*\n)+)^(\w+) = ?(.*)$",
        EXAMPLE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    example = []
    section = ""
    for name, comment, key, default in found:
        section = name or section
        if key:
            words = re.sub(r"^# ?", "", comment, flags=re.MULTILINE).lower().split()
            example.append((section, key, default, " ".join(words)))
    described = [
        (name, field.name, field.metadata["default"], field.metadata["meaning"].lower())
        for name, section_class in SECTIONS.items()
        for field in dataclasses.fields(section_class)
    ]
    assert [entry[:3] for entry in example] == [entry[:3] for entry in described]
    for (*_, comment), (section, key, _, meaning) in zip(example, described, strict=True):
        assert comment.startswith(meaning), f"[{section}] {key}: {meaning}"
