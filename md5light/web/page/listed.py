"""A refused list in the form: its fields, and the errors of its lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import bottle

from md5light.web.answers import Problem
from md5light.web.page.language import Language

#: the fields of the form
FIELDS = ("list", "name", "digests", "base", "email", "skip_invalid")

#: those that are folded away
OPTIONS = FIELDS[1:]

#: bytes of a form that is shown again
MAX_SHOWN_BYTES = 100_000

#: characters of a wrong line that are shown
MAX_SENT_CHARACTERS = 200


class BadLine(NamedTuple):
    """A line that is not accepted, and the reason."""

    number: int
    sent: str
    problem: str


@dataclass(frozen=True)
class Listed:
    """The content of the form, as plain text."""

    fields: Mapping[str, str]
    problem: str = ""
    bad_lines: tuple[BadLine, ...] = ()

    @property
    def has_options(self) -> bool:
        return any(self.fields[name] for name in OPTIONS)


NOTHING_LISTED = Listed(dict.fromkeys(FIELDS, ""))


def listed(
    request: bottle.BaseRequest, problem: Problem, reason: str, language: Language
) -> Listed:
    """Read the refused form again, where it is small enough to be shown."""
    fields, text = dict.fromkeys(FIELDS, ""), ""
    if 0 < request.content_length <= MAX_SHOWN_BYTES:
        request.environ["wsgi.input"].seek(0)
        forms, file = request.forms.decode(), request.files.get("list")
        fields = {name: next(filter(None, forms.getall(name)), "") for name in FIELDS}
        text = fields["list"] or (file.file.read().decode(errors="replace") if file else "")
    sent, wrong = text.split("\n"), cast("list[Any]", problem.details.get("lines", []))
    bad_lines = [
        BadLine(
            line["line"],
            "".join(sent[line["line"] - 1 : line["line"]])[:MAX_SENT_CHARACTERS],
            language.reason(line["code"], line["message"]),
        )
        for line in wrong
    ]
    return Listed(fields, reason, tuple(bad_lines))
