"""The card of a job: the values of its row as texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from md5light.download import urls
from md5light.errors import Refused
from md5light.finding import LABELS, looks_like_page
from md5light.job import Job, error_of
from md5light.lists import digests, writing
from md5light.lists.entry import Entry
from md5light.lists.names import unquote_name
from md5light.times import rfc3339
from md5light.web.page.language import Language


class Fact(NamedTuple):
    """A label and its value."""

    label: str
    value: str
    #: where the value is a point in time: as RFC 3339 has it
    moment: str | None = None


class Comparison(NamedTuple):
    """Whether a digest that the reader brought is the file's."""

    #: matched, mismatched, or neither where it can't be told
    check: str
    text: str


@dataclass(frozen=True)
class Card:
    """The texts of a job for the templates, which escape them."""

    job: Job
    #: the last part of the URL's path, decoded, or else the host
    name: str
    #: the state in a word
    status: str
    #: how much of a running job is there, in percent; empty where that is unknown
    progress: str
    #: the MD5 and the name as md5sum writes them
    sum_line: str
    #: why the job, or its latest attempt, failed
    reason: str
    #: label and value of each further digest
    digests: list[tuple[str, str]]
    #: whether the file is as expected
    verdict: str
    #: size, progress, rate, times: the line at the card's foot
    figures: str
    #: what only the job's own page shows
    facts: list[Fact]


def make_card(job: Job, language: Language, now: float, *, no_worker: bool = False) -> Card:
    """Make the card of `job` at the time `now`; `no_worker`: no worker could claim it."""
    return Card(
        job=job,
        name=_name(job.url),
        status=language.text["again" if _waits_again(job) else job.status],
        progress=_percent(job, language),
        sum_line=_sum_line(job),
        reason=_reason(job, language),
        digests=[(LABELS[name], value) for name, value in job.further.items() if value],
        verdict=_verdict(job, language.text),
        figures=" · ".join(_figures(job, language, now, no_worker)),
        facts=_facts(job, language),
    )


def compare(job: Job, pasted: str, text: dict[str, str]) -> Comparison:
    """Compare a done job's digests with the one in `pasted`; its length gives the algorithm."""
    try:
        parsed = digests.parse(pasted.strip().split(maxsplit=1)[0] if pasted.strip() else "")
    except Refused:
        parsed = None
    if parsed is None:
        return Comparison("", text["no_digest"])
    algorithm, digest = parsed
    found = {"md5": job.md5, **job.further}.get(algorithm)
    if not found:
        return Comparison("", text["not_computed"].format(name=LABELS[algorithm]))
    check, said = ("matched", "equal") if found == digest else ("mismatched", "different")
    return Comparison(check, text[said].format(name=LABELS[algorithm]))


def moment(label: str, seconds: float, language: Language) -> Fact:
    """Return a fact that is a point in time."""
    return Fact(label, language.time(seconds), rfc3339(seconds))


def name_list(names: Iterable[str], text: dict[str, str]) -> str:
    """List the names of expected values."""
    return ", ".join(_label(name, text) for name in names)


def _waits_again(job: Job) -> bool:
    return job.status == "queued" and job.attempts > 0


def _percent(job: Job, language: Language) -> str:
    if job.status != "running" or not job.bytes_total:
        return ""
    return language.percent(min(job.bytes_done, job.bytes_total), job.bytes_total)


def _sum_line(job: Job) -> str:
    if not job.md5:
        return ""
    entry = Entry(1, job.url, job.url, "hashed", digests={"md5": job.md5})
    line = b"".join(writing.write([entry], "md5sum", names="basename"))
    return line.decode().removesuffix("\n")


def _reason(job: Job, language: Language) -> str:
    error = error_of(job)
    if not error or job.status == "running":
        return ""
    return language.reason(error["code"] or "", error["message"] or "")


def _verdict(job: Job, text: dict[str, str]) -> str:
    if job.check != "mismatched":
        return text[job.check] if job.check else ""
    verdict = text["mismatched"].format(different=name_list(job.differing, text))
    if looks_like_page(job.content_type):
        verdict += " " + text["page"].format(type=job.content_type)
    return verdict


def _label(name: str, text: dict[str, str]) -> str:
    return LABELS.get(name) or text[name].lower()


def _name(url: str) -> str:
    return unquote_name(re.split(r"[?#]", url)[0].rstrip("/").rpartition("/")[2])


def _figures(job: Job, language: Language, now: float, no_worker: bool) -> list[str]:
    if no_worker and not job.finished:
        return [language.text["no_worker"]]
    if job.status == "running":
        return _progress(job, language, now)
    if job.status == "done":
        took = (job.finished_at or 0) - (job.started_at or 0)
        return [
            language.size(job.size or 0),
            language.text["took"].format(time=language.duration(took)),
        ]
    if job.status == "queued":
        return _waiting(job, language, now)
    return []


def _progress(job: Job, language: Language, now: float) -> list[str]:
    """Tell bytes, rate and time left; the rate is the mean of the attempt so far."""
    text, done, total = language.text, job.bytes_done, job.bytes_total
    if not done:
        return [text["connecting"]]
    size = language.size(done)
    rate = done / max(1.0, now - (job.started_at or now))
    shown = [
        text["of"].format(done=size, total=language.size(total)) if total else size,
        text["rate"].format(size=language.size(rate)),
    ]
    if total:
        shown.append(text["left"].format(time=language.duration(max(1.0, (total - done) / rate))))
    return shown


def _waiting(job: Job, language: Language, now: float) -> list[str]:
    if job.next_attempt_at is None:
        return [language.text["turn"]]
    time = language.duration(max(1.0, job.next_attempt_at - now))
    if job.rest_until is not None:
        return [language.text["rest"].format(time=time)]
    return [
        language.text["next_attempt"].format(
            number=job.attempts + 1, total=job.max_attempts, time=time
        )
    ]


def _facts(job: Job, language: Language) -> list[Fact]:
    text = language.text
    expected = [
        Fact(text["expected"].format(name=_label(name, text)), _expected(value, language))
        for name, value in job.expected.items()
    ]
    known = {
        "size": language.bytes(job.size) if job.size is not None else "",
        "content_type": job.content_type,
        "last_modified": job.last_modified,
        "final_url": _redirected_to(job),
        "attempts": _attempts(job, text),
    }
    facts = [Fact(text[name], value) for name, value in known.items() if value]
    facts.append(moment(text["created_at"], job.created_at, language))
    if job.finished_at:
        facts.append(moment(text["finished_at"], job.finished_at, language))
    if job.mail != "none":
        facts.append(Fact(text["mail"], _mail(job, text)))
    return [*expected, *facts]


def _expected(value: int | str, language: Language) -> str:
    return language.bytes(value) if isinstance(value, int) else value


def _redirected_to(job: Job) -> str:
    """Return where the file was, if not at the URL; both are compared in the normalised form."""
    try:
        asked = urls.parse(job.url).text
    except Refused:  # an older version took it
        asked = job.url
    return "" if job.final_url in (None, asked) else str(job.final_url)


def _attempts(job: Job, text: dict[str, str]) -> str:
    return text["of"].format(done=job.attempts, total=job.max_attempts) if job.attempts else ""


def _mail(job: Job, text: dict[str, str]) -> str:
    return text[f"mail_{job.mail}"] if job.finished else text["mail_promised"]
