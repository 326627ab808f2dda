"""TLS for clients: the one place that makes contexts, for downloads and for mail.

The settings do not depend on the build of Python or OpenSSL: md5light connects to every server that
curl connects to, and a connection that was cut is an error.
"""

from __future__ import annotations

import functools
import os
import socket
import ssl
from typing import Any

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from md5light.interrupt import Interrupt

#: X509_V_ERR_HOSTNAME_MISMATCH of OpenSSL
OTHER_NAME = 62

#: OpenSSL's verify codes, in plain words; `{}` is "The server" or "The mail server"
CERTIFICATE = {
    2: "{}'s certificate was issued by an authority that is not trusted.",
    7: "{}'s certificate has a wrong signature.",
    9: "{}'s certificate is not yet valid.",
    10: "{}'s certificate has expired.",
    18: "{}'s certificate is self-signed.",
    19: "{}'s certificate was issued by an authority that is not trusted: its root is self-signed.",
    24: "{}'s certificate was issued with a certificate that may not issue others.",
    26: "{}'s certificate is not meant for servers.",
    47: "{}'s certificate is for a name that its issuer may not certify.",
    48: "{}'s certificate is for a name that its issuer may not certify.",
    OTHER_NAME: "{}'s certificate is for another name.",
    64: "{}'s certificate is for another name.",
    66: "{}'s certificate has a key that is too weak.",
    67: "{}'s certificate was issued with a key that is too weak.",
    68: "{}'s certificate was signed with a digest that is too weak.",
    79: "{}'s certificate was issued with a certificate that may not issue others.",
}
#: the issuer is neither in the store nor sent by the server
UNKNOWN_ISSUER = (
    "{} does not send its intermediate certificate, "
    "or the issuer of its certificate is not trusted."
)

#: OpenSSL's reasons for a failed handshake
NOTHING_IN_COMMON = {
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY",
    "UNSUPPORTED_PROTOCOL",
    "WRONG_SSL_VERSION",
    "NO_PROTOCOLS_AVAILABLE",
    "WRONG_CIPHER_RETURNED",
    "UNKNOWN_CIPHER_RETURNED",
    "DH_KEY_TOO_SMALL",
}
NOT_TLS = {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}


class Client:
    """Starts TLS over connections; chain and name are always verified.

    `ca_file` holds certificates to trust in addition to the system's and certifi's.
    """

    def __init__(self, ca_file: str = "") -> None:
        self._ca_file = ca_file

    # Made once, and only when needed: loading the certificates takes 50 ms, more than a small file.

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        return make_context(self._ca_file)

    @functools.cached_property
    def _any_name(self) -> ssl.SSLContext:
        """A context without a check of the name, which `_check_name` does."""
        context = make_context(self._ca_file)
        context.check_hostname = False
        return context

    def start(self, connection: socket.socket, host: str, interrupt: Interrupt) -> ssl.SSLSocket:
        """Shake hands within the connection's timeout; the certificate must be the host's.

        Raises ssl.SSLError, which `explain` turns into a sentence, or OSError when the connection
        broke.
        """
        # Of a connection that was reset, wrap_socket leaves a socket open and forgets it.
        if broken := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(broken, os.strerror(broken))
        # OpenSSL matches no name with an underscore against a wildcard, unlike curl and browsers.
        odd = "_" in host
        context = self._any_name if odd else self._context
        # An end of the connection without TLS's closing message is an error: an attacker can cause
        # it in the middle of a body.
        tls = context.wrap_socket(
            connection,
            server_hostname=host,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        try:
            interrupt.hold(tls)
            tls.do_handshake()
            if odd:
                _check_name(tls, host)
        except BaseException:
            interrupt.hold()
            tls.close()
            raise
        return tls


def explain(error: ssl.SSLError, server: str = "The server") -> str:
    """Return a sentence that says why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in (20, 21):
            return UNKNOWN_ISSUER.format(server)
        known = CERTIFICATE.get(error.verify_code)
        return known.format(server) if known else f"{server}'s certificate is not valid."
    if is_cut(error):
        return f"{server} closed the connection during the TLS handshake."
    if error.reason in NOTHING_IN_COMMON:
        return f"{server} and md5light have no TLS version or cipher in common."
    if error.reason in NOT_TLS:
        return f"{server} does not speak TLS on this port."
    if error.reason == "TLSV1_UNRECOGNIZED_NAME":
        return f"{server} has no certificate for this name."
    return f"The TLS handshake with {server[0].lower()}{server[1:]} failed."


def is_cut(error: ssl.SSLError) -> bool:
    """Tell whether the connection ended without TLS's closing message."""
    # Some versions of Python have no class for it.
    return isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING"


def make_context(ca_file: str = "") -> ssl.SSLContext:
    """Make a context that verifies chain and name; raises OSError for a wrong `ca_file`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # chain and name are verified
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT")  # Python's own list excludes the ciphers of old servers
    # Some builds of Python set it: then a body that was cut would seem complete.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    # As in curl: any certificate of the store is a trust anchor; VERIFY_X509_STRICT is off, since
    # it refuses some public roots.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.hostname_checks_common_name = False  # RFC 9525, 6.3
    context.post_handshake_auth = True
    context.load_default_certs()
    for file in filter(None, (DEFAULT_CA_BUNDLE_PATH, ca_file)):
        context.load_verify_locations(file)
    return context


def _check_name(tls: ssl.SSLSocket, host: str) -> None:
    """Raise SSLCertVerificationError unless the certificate of a verified chain is for `host`."""
    certificate: dict[str, Any] = tls.getpeercert() or {}
    names = certificate.get("subjectAltName", ())
    if not any(kind == "DNS" and _matches(name.lower(), host) for kind, name in names):
        error = ssl.SSLCertVerificationError(1, "hostname mismatch")
        error.verify_code = OTHER_NAME
        raise error


def _matches(pattern: str, host: str) -> bool:
    """Compare names; a wildcard stands for one whole left-most label (RFC 9525, 6.3)."""
    first, _, rest = pattern.partition(".")
    return pattern == host or (first == "*" and "." in rest and rest == host.partition(".")[2])
