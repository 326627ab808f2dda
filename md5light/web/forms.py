"""The fields of a request: from its query, or from its body in one of three forms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

import bottle

from md5light.errors import Refused
from md5light.finding import ALGORITHMS, EXPECTABLE, Wanted
from md5light.lists import digests
from md5light.lists.lines import parse_size
from md5light.web.answers import standard_problem

#: the parameters of a submission
SUBMISSION = ("url", "email", "digests", *EXPECTABLE)

FORM = "application/x-www-form-urlencoded"

#: the usual cause of an unknown parameter in a submission
NOT_ENCODED = '; was the URL not encoded? curl --data-urlencode "url=…" does it'

#: a URL without a scheme: it begins with a host that has a dot or a port
WITHOUT_SCHEME = re.compile(
    r"(?:(?:[^\s:/?#@.]+\.)+[^\s:/?#@.]+(?::[0-9]+)?|[^\s:/?#@]+:[0-9]+)(?:[/?#].*)?", re.DOTALL
)

#: characters of an unknown name that a message shows
SHOWN_CHARACTERS = 100

#: names and values in their order; a value may be other than text: a file, or a number in JSON
Fields = list[tuple[str, object]]


def submission(request: bottle.BaseRequest) -> dict[str, str]:
    """Return the parameters of a submission in the body; raises Refused or Problem.

    An unknown parameter and a value that is not text are refused.
    """
    media_type, fields = _body_fields(request)
    for name, _ in fields:
        if name not in SUBMISSION:
            raise unknown(name, NOT_ENCODED)
    texts = [(name, _text(name, value)) for name, value in fields]
    if media_type == FORM:
        _check_spaces(texts)
    return each_once(texts)


def query(request: bottle.BaseRequest, name: str) -> str:
    """Return the parameter `name` of the query; others are ignored. Raises Refused."""
    fields = decoded(request.query_string.encode("latin-1"), errors="replace")
    return required(each_once([field for field in fields if field[0] == name]), name)


def required(fields: dict[str, str], name: str) -> str:
    """Return the field `name`; raises Refused if it is missing or empty."""
    if not fields.get(name):
        raise Refused("missing_parameter", f"`{name}` is missing.")
    return fields[name]


def completed(url: str) -> str:
    """Return a URL that a person has typed or pasted, without blanks and with a scheme."""
    url = url.strip()
    return f"https://{url}" if WITHOUT_SCHEME.fullmatch(url) else url


def wanted(fields: dict[str, str]) -> Wanted:
    """Return the further digests and the expected values that `fields` name. Raises Refused."""
    expected: dict[str, int | str] = {}
    for name in EXPECTABLE:
        try:
            value = _expected(name, fields.get(name, ""))
        except Refused as refused:
            raise Refused(refused.code, f"`{name}`: {refused.message}") from None
        if value is not None:
            expected[name] = value
    return Wanted.of(algorithms(fields.get("digests", "")), expected)


def algorithms(text: str) -> list[str]:
    """Parse names of digests, separated by spaces or commas; raises Refused("invalid_digests")."""
    names = []
    for spelling in text.replace(",", " ").split():
        name = digests.algorithm_of(spelling)
        if name is None:
            known = ", ".join(ALGORITHMS)
            message = f"`digests` may name {known}, and not `{_shown(spelling)}`."
            raise Refused("invalid_digests", message)
        names.append(name)
    return names


def _expected(name: str, text: str) -> int | str | None:
    if name == "size":
        return parse_size(text)
    found = digests.parse(text, name)
    return found and found[1]


def _body_fields(request: bottle.BaseRequest) -> tuple[str, Fields]:
    """Return the media type of the body, and the fields in it."""
    media_type, semicolon, parameters = request.environ.get("CONTENT_TYPE", "").partition(";")
    media_type = media_type.strip().lower()
    if media_type == "application/json":
        return media_type, _json_fields(request.body.read())
    if media_type == "multipart/form-data":
        # Bottle knows it in lower case only.
        request.environ["CONTENT_TYPE"] = media_type + semicolon + parameters
        return media_type, _multipart_fields(request)
    body = request.body.read()
    if media_type == FORM or not body:
        return FORM, list(decoded(body))
    raise standard_problem(415)


def decoded(form: bytes, errors: str = "strict") -> list[tuple[str, str]]:
    """Read application/x-www-form-urlencoded. Raises Refused."""
    try:
        text = form.decode(errors=errors)
        return parse_qsl(text, keep_blank_values=True, errors=errors, max_num_fields=100)
    except ValueError:  # UnicodeDecodeError is one
        message = "The form is not UTF-8 text, or has too many fields."
        raise Refused("bad_request", message) from None


def _multipart_fields(request: bottle.BaseRequest) -> Fields:
    try:
        return list(request.POST.decode().allitems())
    except (ValueError, LookupError):  # a part is no text in its charset, or there is no such one
        raise standard_problem(400) from None


def _json_fields(body: bytes) -> Fields:
    try:
        fields = json.loads(body, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, tuple):
        raise Refused("bad_request", "The body is not a JSON object.")
    return list(fields)


def unknown(name: str, advice: str = "") -> Refused:
    """Return the refusal of a parameter that there is not."""
    return Refused("unknown_parameter", f"There is no parameter `{_shown(name)}`{advice}.")


def yes_or_no(fields: dict[str, str], name: str) -> bool:
    """Return the field `name`, a `yes` or `no`; False where it is missing. Raises Refused."""
    value = fields.get(name) or "no"
    if value not in ("yes", "no"):
        raise Refused(f"invalid_{name}", f"`{name}` is yes or no.")
    return value == "yes"


def _shown(text: str) -> str:
    """Return the beginning of what a client sent, fit to be repeated in a message."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:SHOWN_CHARACTERS])


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None and name != "url":
        return ""
    if name == "size" and type(value) is int:  # a number of JSON; True is none
        return str(value)
    kind = "a whole number" if name == "size" else "a string"
    raise _invalid(name, f"`{name}` must be {kind}.")


def _check_spaces(texts: Iterable[tuple[str, str]]) -> None:
    """Refuse a space inside a value: it may be a plus sign that was not percent-encoded."""
    for name, value in texts:
        if " " in value.strip() and name != "digests":
            message = (
                f"`{name}` contains a space; was it a + that was not encoded? "
                f'curl --data-urlencode "{name}=…" does it.'
            )
            raise _invalid(name, message)


def _invalid(name: str, message: str) -> Refused:
    return Refused("invalid_digest" if name in ALGORITHMS else f"invalid_{name}", message)


def each_once(texts: list[tuple[str, str]]) -> dict[str, str]:
    """Return the fields by name; raises Refused if one is given twice."""
    fields = dict(texts)
    if len(fields) < len(texts):
        names = [name for name, _ in texts]
        repeated = next(name for name in fields if names.count(name) > 1)
        raise Refused("repeated_parameter", f"`{repeated}` is given more than once.")
    return fields
