"""Answers of a server: a batch, or an error in md5light's form; otherwise it is not md5light."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from requests import Response

from md5light.errors import Md5lightError, NotDone, Refused, Unreachable
from md5light.text import visible

#: statuses of a wrong request, in contrast to a missing or unsuitable batch
REFUSALS = {400, 413, 415, 422}

#: names in errors of the API, and the client's flags for them
FLAGS = {
    "skip_invalid=yes": "--skip-invalid",
    "partial=yes": "--partial",
    "Send `Authorization: Bearer TOKEN`, or its name and the token as user and password.": (
        "Put NAME:TOKEN@ before the host in --server, or both into ~/.netrc."
    ),
}


class Batch(NamedTuple):
    """A batch as the server describes it."""

    id: str
    status: str
    counts: dict[str, int]
    #: the whole object of the server
    described: dict[str, Any]
    #: seconds after which the server wants to be asked again, None if it does not say
    retry_after: float | None

    @property
    def ended(self) -> bool:
        return self.status != "running"

    @property
    def bad(self) -> int:
        """Count the lines that failed, do not match or were canceled."""
        return sum(self.counts[status] for status in ("failed", "mismatched", "canceled"))


def read_batch(answer: Response, server: str, batch_id: str) -> Batch:
    """Return the batch that an answer describes; raises what `read_object` raises."""
    value = read_object(answer, server, 200, "id", "status", "counts", missing=batch_id)
    try:
        counts = {str(name): int(count) for name, count in value["counts"].items()}
        batch = Batch(str(value["id"]), str(value["status"]), counts, value, retry_after(answer))
        _ = batch.bad, counts["total"]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise stranger(answer, server) from None
    return batch


def read_object(
    answer: Response, server: str, status: int, *keys: str, missing: str = ""
) -> dict[str, Any]:
    """Return the JSON object of an answer of `status`, which has these keys.

    Raises NotDone or Refused as the server says, Unreachable if it is no md5light. `missing` is the
    batch that does not exist if the answer says so.
    """
    value = _json(answer)
    if answer.status_code == status and all(key in value for key in keys):
        return value
    if answer.status_code == 404 and missing and value == {"status": "not found"}:
        raise no_batch(missing)
    if not (said := error_in(answer)):
        raise stranger(answer, server)
    if answer.status_code in REFUSALS:
        raise Refused(value["error"]["code"], said)
    raise NotDone(f"{server}: {said}")


def error_in(answer: Response) -> str:
    """Return the message of an error as md5light writes it, and its bad lines, else nothing."""
    match _json(answer):
        case {"error": {"code": str(), "message": str(message), **more}}:
            for of_api, of_client in FLAGS.items():
                message = message.replace(of_api, of_client)
            return "\n".join([visible(message), *_bad_lines(more.get("lines"))])
    return ""


def retry_after(answer: Response) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if re.fullmatch("[0-9]{1,6}", value) else None


def no_batch(batch_id: str) -> Md5lightError:
    return NotDone(f"there is no batch {visible(batch_id)}")


def stranger(answer: Response, server: str) -> Md5lightError:
    kind = visible(media_type(answer) or "nothing")
    return Unreachable(
        f"{server} is not md5light, or not of this version: it answered "
        f"{answer.status_code} with {kind}"
    )


def media_type(answer: Response) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _json(answer: Response) -> dict[str, Any]:
    """Return the JSON object of an answer, an empty one if it holds none."""
    try:
        value = json.loads(answer.content)
    except (ValueError, RecursionError, RuntimeError):
        return {}
    return value if isinstance(value, dict) else {}


def _bad_lines(lines: object) -> Iterator[str]:
    for line in lines if isinstance(lines, list) else []:
        if isinstance(line, Mapping):
            yield visible(f"line {line.get('line')}: {line.get('message')} ({line.get('code')})")
