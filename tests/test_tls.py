"""TLS as a client: servers that it trusts and connects to, and what it says of the others."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import select
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from md5light import tls
from md5light.config import DownloadConfig
from md5light.dial import AddressInfo
from md5light.download.downloader import Downloader, Transfer
from md5light.errors import Failure, PermanentFailure, TemporaryFailure
from md5light.interrupt import Interrupt
from tests.origin import Origin, Peer, Raw

pytestmark = [pytest.mark.python, pytest.mark.usefixtures("empty_store")]

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)

BODY = b"hello" * 100_000


def resolve(host: str, port: int, **_: object) -> list[AddressInfo]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


def download(url: str, ca_file: object = "", times: int = 1) -> str:
    """Return the one MD5 of the file at `url`, whose host is on loopback whatever it is called."""
    config = DownloadConfig(
        allow_networks=(ipaddress.ip_network("127.0.0.0/8"),),
        ca_file=str(ca_file),
        connect_timeout=2.0,
        read_timeout=2.0,
    )
    downloader = Downloader(config, resolve=resolve)
    try:
        (md5,) = {downloader.download(url, Transfer()).md5 for _ in range(times)}
        return md5
    finally:
        downloader.close()


class Authority:
    """A certificate authority of this module's own, which certifies whatever a test asks for."""

    def __init__(self, *, identified: bool = True) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("md5light test root")
        builder = _builder(self._name, self._name, self._key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        if identified:
            identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
            builder = builder.add_extension(identifier, False)
        self.certificate = builder.sign(self._key, hashes.SHA256())

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def serve(
        self,
        *names: str,
        common_name: str = "",
        valid: tuple[datetime.datetime, datetime.datetime] = (NOW - DAY, NOW + DAY),
        self_signed: bool = False,
        with_root: bool = False,
        usage: x509.ObjectIdentifier | None = None,
        context: ssl.SSLContext | None = None,
    ) -> ssl.SSLContext:
        """Make the context of a server whose certificate is for `names`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(common_name or "md5light test")
        builder = _builder(subject, subject if self_signed else self._name, key, valid)
        if names:
            general = [_general_name(name) for name in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(general), False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        leaf = builder.sign(key if self_signed else self._key, hashes.SHA256())
        chain = leaf.public_bytes(serialization.Encoding.PEM) + (self.pem() if with_root else b"")
        context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load(context, chain, key)
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    valid: tuple[datetime.datetime, datetime.datetime] = (NOW - DAY, NOW + DAY),
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
    )


def _load(context: ssl.SSLContext, chain: bytes, key: ec.EllipticCurvePrivateKey) -> None:
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with tempfile.NamedTemporaryFile() as file:
        file.write(secret + chain)
        file.flush()
        context.load_cert_chain(file.name)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def ca_file(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_bytes(authority.pem())
    return file


@contextlib.contextmanager
def serving(context: ssl.SSLContext) -> Iterator[Origin]:
    with Origin(tls=context) as origin:
        origin.serve("/file", BODY)
        yield origin


def failure_of(origin: Origin, host: str, ca_file: object = "") -> Failure:
    with pytest.raises(Failure) as caught:
        download(origin.url("/file", host), ca_file)
    assert caught.value.code == "tls_failed"
    assert origin.requests() == 0
    return caught.value


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("certified", "host"),
    [
        ("files.test", "files.test"),
        ("*.s3.test", "bucket.s3.test"),
        ("*.s3.test", "my_bucket.s3.test"),
        ("*.S3.test", "_.s3.test"),
        ("my_bucket.s3.test", "my_bucket.s3.test"),
        ("*.my_files.test", "a.my_files.test"),
        ("*.my_files.test", "a_b.my_files.test"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_the_name_is_certified(
    authority: Authority, ca_file: Path, certified: str, host: str
) -> None:
    with serving(authority.serve("first.test", certified)) as origin:
        assert download(origin.url("/file", host), ca_file) == hashlib.md5(BODY).hexdigest()


@pytest.mark.parametrize(
    ("certified", "host"),
    [
        ("files.test", "other.test"),
        ("files.test", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.1"),
        ("*.s3.test", "s3.test"),
        ("*.s3.test", "a.b.s3.test"),
        ("*.s3.test", "a_b.c.s3.test"),
        ("*.s3.test", "a.b_c.s3.test"),
        ("*.s3.test", "a_b.s4.test"),
        ("*.test", "a_b.test"),
        ("*", "a_b"),
        ("my*.s3.test", "my_bucket.s3.test"),
        ("*_bucket.s3.test", "my_bucket.s3.test"),
        ("my_bucket.*.test", "my_bucket.s3.test"),
        ("*.*.test", "my_bucket.s3.test"),
        ("my_bucket.s3.test.evil.test", "my_bucket.s3.test"),
    ],
)
def test_another_name_is_certified(
    authority: Authority, ca_file: Path, certified: str, host: str
) -> None:
    with serving(authority.serve(certified, common_name=host)) as origin:
        failure = failure_of(origin, host, ca_file)
    assert isinstance(failure, PermanentFailure)
    assert failure.message == "The server's certificate is for another name."


@pytest.mark.parametrize("host", ["files.test", "my_files.test"])
def test_a_common_name_counts_for_nothing(authority: Authority, ca_file: Path, host: str) -> None:
    with serving(authority.serve(common_name=host)) as origin:
        assert isinstance(failure_of(origin, host, ca_file), PermanentFailure)


# --- chains ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["files.test", "my_files.test"])
@pytest.mark.parametrize(
    ("options", "trusted", "words"),
    [
        ({"valid": (NOW - 2 * DAY, NOW - DAY)}, True, "has expired"),
        ({"valid": (NOW + DAY, NOW + 2 * DAY)}, True, "not yet valid"),
        ({"self_signed": True}, True, "is self-signed"),
        ({"with_root": True}, False, "an authority that is not trusted: its root is self-signed"),
        ({}, False, "intermediate certificate, or the issuer of its certificate is not trusted"),
        ({"usage": ExtendedKeyUsageOID.CLIENT_AUTH}, True, "not meant for servers"),
    ],
)
def test_a_certificate_that_is_not_valid(
    authority: Authority,
    ca_file: Path,
    host: str,
    options: dict[str, object],
    trusted: bool,
    words: str,
) -> None:
    with serving(authority.serve(host, **options)) as origin:  # type: ignore[arg-type]
        failure = failure_of(origin, host, ca_file if trusted else "")
    assert isinstance(failure, PermanentFailure)
    assert words in failure.message


def test_an_intermediate_certificate_that_is_not_sent(tmp_path: Path) -> None:
    root = trustme.CA()
    root.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    leaf = root.create_child_ca().issue_cert("files.test")
    with tempfile.NamedTemporaryFile() as file:
        file.write(leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes())
        file.flush()
        alone = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        alone.load_cert_chain(file.name)
    with serving(alone) as origin:
        failure = failure_of(origin, "files.test", tmp_path / "ca.pem")
    assert "does not send its intermediate certificate" in failure.message
    whole = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(whole)
    with serving(whole) as origin:
        assert download(origin.url("/file", "files.test"), tmp_path / "ca.pem")


def test_a_root_without_key_identifier_is_trusted(tmp_path: Path) -> None:
    """VERIFY_X509_STRICT, which Python 3.13 sets by default, refuses it; curl does not."""
    authority = Authority(identified=False)
    (tmp_path / "ca.pem").write_bytes(authority.pem())
    with serving(authority.serve("files.test")) as origin:
        assert download(origin.url("/file", "files.test"), tmp_path / "ca.pem")


def test_the_store_of_the_system_is_trusted(
    authority: Authority, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    with serving(authority.serve("files.test")) as origin:
        assert download(origin.url("/file", "files.test"))


# --- versions and ciphers -------------------------------------------------------------------------


def server_context(version: ssl.TLSVersion, ciphers: str = "") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if ciphers:
        context.set_ciphers(ciphers)
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize(
    "ciphers",
    [
        "AES256-GCM-SHA384",
        "AES128-GCM-SHA256",
        "AES256-SHA",
        "AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-RSA-AES256-SHA",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ],
)
def test_old_servers_are_spoken_with(tmp_path: Path, ciphers: str) -> None:
    root = trustme.CA()
    root.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = server_context(ssl.TLSVersion.TLSv1_2, ciphers)
    root.issue_cert("files.test", key_type=trustme.KeyType.RSA).configure_cert(context)
    with serving(context) as origin:
        assert download(origin.url("/file", "files.test"), tmp_path / "ca.pem")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1_1, "DEFAULT:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "aNULL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "eNULL:@SECLEVEL=0"),
    ],
)
def test_nothing_in_common(
    authority: Authority, ca_file: Path, version: ssl.TLSVersion, ciphers: str
) -> None:
    context = server_context(version, ciphers)
    with serving(authority.serve("files.test", context=context)) as origin:
        failure = failure_of(origin, "files.test", ca_file)
    assert isinstance(failure, TemporaryFailure)
    assert "no TLS version or cipher in common" in failure.message


def test_a_server_that_asks_for_a_certificate_later_goes_on_without(
    authority: Authority, ca_file: Path
) -> None:
    context = authority.serve("files.test")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.post_handshake_auth = True
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(ca_file)

    def script(peer: Peer) -> object:
        assert isinstance(peer.socket, ssl.SSLSocket)
        peer.socket.verify_client_post_handshake()
        return peer.reply(BODY)

    with serving(context) as origin:
        origin.serve("/file", script)
        assert download(origin.url("/file", "files.test"), ca_file) == hashlib.md5(BODY).hexdigest()


# --- what is no TLS, or ends early ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "does not speak TLS"),
        (b"220 ftp.test ready\r\n", "does not speak TLS"),
        (b"\x15\x03\x01\x00\x02\x02\x70", "no certificate for this name"),
        (b"\x15\x03\x01\x00\x02\x02\x50", "handshake with the server failed"),
        (b"", "closed the connection during the TLS handshake"),
        (b"\x16\x03\x03\x10", "closed the connection during the TLS handshake"),
    ],
)
def test_a_server_that_does_not_shake_hands(answer: bytes, words: str) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(TemporaryFailure) as caught:
            download(f"https://files.test:{listener.getsockname()[1]}/")
        serving.join()
    assert caught.value.code == "tls_failed"
    assert words in caught.value.message


@pytest.mark.parametrize("host", ["files.test", "my_files.test"])
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_body_until_close_needs_the_end_of_tls(
    authority: Authority, ca_file: Path, host: str, clean: bool, version: ssl.TLSVersion
) -> None:
    def script(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
        if not clean:
            socket.socket.shutdown(peer.socket, socket.SHUT_WR)
            peer.wait_closed()

    with serving(authority.serve(host, context=server_context(version))) as origin:
        origin.serve("/file", script)
        if clean:
            assert download(origin.url("/file", host), ca_file) == hashlib.md5(BODY).hexdigest()
        else:
            with pytest.raises(TemporaryFailure) as caught:
                download(origin.url("/file", host), ca_file)
            assert caught.value.code == "incomplete"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_kept_connection_that_is_cut_is_replaced(
    authority: Authority, ca_file: Path, version: ssl.TLSVersion
) -> None:
    def script(peer: Peer) -> object:
        if peer.turn == 1:
            return peer.reply(BODY)
        socket.socket.shutdown(peer.socket, socket.SHUT_RDWR)
        return False

    with serving(authority.serve("files.test", context=server_context(version))) as origin:
        url = origin.serve("/file", script).replace("127.0.0.1", "files.test")
        assert download(url, ca_file, times=3) == hashlib.md5(BODY).hexdigest()
        assert origin.connections == 3


def test_a_head_that_is_cut_is_no_answer(authority: Authority, ca_file: Path) -> None:
    with serving(authority.serve("files.test")) as origin:
        origin.serve("/file", Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"))
        with pytest.raises(TemporaryFailure) as caught:
            download(origin.url("/file", "files.test"), ca_file)
    assert caught.value.code == "incomplete"


def test_a_connection_that_was_reset_leaves_no_socket_open() -> None:
    """A connection left open is an error, since ResourceWarnings are errors in tests."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as connection,
    ):
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()  # sends RST
        select.select([connection], [], [])
        with pytest.raises(ConnectionResetError):
            tls.Client().start(connection, "127.0.0.1", Interrupt())
