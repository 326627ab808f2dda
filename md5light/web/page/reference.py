"""The description of the API for people: each call with a command that can be copied."""

from __future__ import annotations

from typing import Any, NamedTuple

#: what a call needs beside its address; a path that is not here is asked for as it is
ARGUMENTS = {
    ("POST", "/submit"): '--data-urlencode "url=https://…" ',
    ("POST", "/batches"): "--data-binary @list.txt ",
}

#: how curl is told of a method
METHODS = {"GET": "", "POST": "-X POST ", "DELETE": "-X DELETE "}

#: queries without which a path has no answer
QUERIES = {"/check": "?id=ID"}


class Call(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    summary: str
    command: str


def calls(document: dict[str, Any], address: str) -> list[Call]:
    """List the calls of an OpenAPI document, for the service at `address`."""
    return [
        Call(method.upper(), path, described["summary"], _command(method.upper(), path, address))
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    ]


def _command(method: str, path: str, address: str) -> str:
    arguments = ARGUMENTS.get((method, path), METHODS[method])
    target = path.replace("{id}", "ID") + QUERIES.get(path, "")
    quote = '"' if "?" in target else ""
    return f"curl {arguments}{quote}{address}{target}{quote}"
