"""The description of the API for people: each call with a command that can be copied."""

from __future__ import annotations

from typing import Any, NamedTuple

from md5light.web.page.language import Language

#: the summaries of the calls in Russian
RUSSIAN = {
    "Ask for the MD5 of a file.": "Узнать MD5 файла.",
    "Ask for the result.": "Узнать результат.",
    "Tell everything that may be known of a job.": "Узнать о задании всё.",
    "Cancel an unfinished job.": "Отменить незаконченное задание.",
    "Try a failed or canceled job again.": "Повторить неудавшееся или отменённое задание.",
    "Hand over a list.": "Передать список.",
    "Show a batch.": "Узнать, что стало со списком.",
    "Cancel what is unfinished of a batch.": "Отменить всё незаконченное в списке.",
    "Get the list with its results, at any time.": "Получить список с результатами, в любое время.",
    "Try the failed and canceled lines again.": "Повторить неудавшиеся и отменённые строки.",
    "Tell whether the process answers.": "Узнать, отвечает ли сервис.",
    "Tell whether jobs can be stored.": "Узнать, можно ли сохранить задание.",
    "This description.": "Это описание.",
    "Tell the state of the service to Prometheus.": "Узнать состояние сервиса, для Prometheus.",
}

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


def calls(document: dict[str, Any], address: str, language: Language) -> list[Call]:
    """List the calls of an OpenAPI document, for the service at `address`."""
    said = RUSSIAN if language.name == "ru" else {}
    return [
        Call(
            method.upper(),
            path,
            said.get(described["summary"], described["summary"]),
            _command(method.upper(), path, address),
        )
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    ]


def _command(method: str, path: str, address: str) -> str:
    arguments = ARGUMENTS.get((method, path), METHODS[method])
    target = path.replace("{id}", "ID") + QUERIES.get(path, "")
    quote = '"' if "?" in target else ""
    return f"curl {arguments}{quote}{address}{target}{quote}"
