"""Checks the URL of a PostgreSQL database before libpq does: libpq's errors show passwords.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

from __future__ import annotations

import difflib
import re
import urllib.parse

#: the prefix of such a URL once it is checked
PREFIX = "postgresql://"

#: the schemes that libpq accepts, in upper or lower case as in every URL
SCHEME = re.compile("(?i:postgres(ql)?)://")

#: the parameters of libpq 17 and 18, and `ssl`, which it accepts only in a URL
PARAMETERS = frozenset(
    """
    application_name channel_binding client_encoding connect_timeout dbname
    fallback_application_name gssdelegation gssencmode gsslib host hostaddr keepalives
    keepalives_count keepalives_idle keepalives_interval krbsrvname load_balance_hosts
    max_protocol_version min_protocol_version oauth_client_id oauth_client_secret oauth_issuer
    oauth_scope options passfile password port replication require_auth requirepeer
    requiressl scram_client_key scram_server_key service servicefile ssl
    ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode sslcompression sslcrl
    sslcrldir sslkey sslkeylogfile sslmode sslnegotiation sslpassword sslrootcert sslsni
    target_session_attrs tcp_user_timeout user
    """.split()  # noqa: SIM905 - a list would have fifty lines
)

ENCODED = "%[0-9A-Fa-f]{2}"
TEXT = rf"(?:[^\s%#?/@]|{ENCODED})*"
HOST = rf"(?:\[[^\s#?/@\[\]]+\]|(?:[^\s%#?/@:,\[\]]|{ENCODED})*)(?::(?:[0-9]{{1,5}})?)?"
PARTS = re.compile(rf"(?:{TEXT}@)?{HOST}(?:,{HOST})*(?:/{TEXT})?(?:\?(?P<query>.*))?")
PARAMETER = re.compile(rf"([a-z_]+)=(?:[^\s%#&=]|{ENCODED})*")

MALFORMED = (
    "is not a URL that PostgreSQL takes; percent-encode what is special in a password "
    "(% is %25, # is %23, / is %2F, @ is %40), or use passfile= or ~/.pgpass"
)


def checked(url: str) -> str:
    """Return the URL with the scheme postgresql; a ValueError never shows the text."""
    rest = SCHEME.sub("", url, count=1)
    parts = PARTS.fullmatch(rest)
    if not parts or not _is_text(rest):
        raise ValueError(MALFORMED)
    for pair in filter(None, (parts["query"] or "").split("&")):
        parameter = PARAMETER.fullmatch(pair)
        if not parameter:
            raise ValueError(MALFORMED)
        _check_parameter(parameter[1])
    return PREFIX + rest


def is_connection_string(value: str) -> bool:
    """Tell whether it is libpq's other form: `host=… dbname=…`."""
    first = re.match(r"\s*([a-z_]+)\s*=", value)
    return first is not None and first[1] in PARAMETERS


def _is_text(encoded: str) -> bool:
    try:
        return "\0" not in urllib.parse.unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        return False


def _check_parameter(name: str) -> None:
    if name not in PARAMETERS:  # the name is not shown: it may be a part of the password
        near = difflib.get_close_matches(name, PARAMETERS, n=1)
        meant = f"; perhaps {near[0]} is meant" if near else ""
        raise ValueError(f"has a parameter that PostgreSQL does not know{meant}")
