"""The page of a batch: its counts, its errors and a page of its lines as texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlencode

from md5light.batch import Batch, Counts, ErrorCount, Result
from md5light.finding import LABELS, differing
from md5light.lists.entry import Entry
from md5light.lists.formats import FORMS
from md5light.lists.names import basename_of
from md5light.web.page.card import Fact, moment, name_list
from md5light.web.page.language import Language

#: lines on one page
PAGE_LINES = 200

#: statuses of lines in the order in which they are shown, and the names of their labels
LABELS_OF_STATUSES = {
    "matched": "matched_lines",
    "hashed": "hashed",
    "mismatched": "mismatched_lines",
    "failed": "failed",
    "canceled": "canceled",
    "running": "running",
    "waiting": "waiting",
}

#: the filters that are always shown
ALWAYS_OFFERED = ("", "failed", "mismatched")

#: formats of manifests, and the queries for them; that of gcs is refused while lines are not done
DOWNLOADS = {form: urlencode({"format": form}) for form in FORMS}
DOWNLOADS["gcs"] += "&partial=yes"


class Part(NamedTuple):
    """The selected lines."""

    #: one of LABELS_OF_STATUSES; empty: any
    status: str = ""
    #: position behind which they begin
    after: int = 0

    @property
    def href(self) -> str:
        query = {"status": self.status, "after": self.after or ""}
        given = urlencode({name: value for name, value in query.items() if value})
        return f"?{given}#lines"


class Share(NamedTuple):
    """A piece of the bar, in percent of its width."""

    status: str
    start: float
    width: float


class Choice(NamedTuple):
    """A link of the filter."""

    status: str
    label: str
    number: str
    href: str
    current: bool


class Error(NamedTuple):
    """How many lines failed for one reason, and positions of the first ones."""

    reason: str
    number: str
    lines: Sequence[int]


class Line(NamedTuple):
    """A row of the table of lines."""

    position: str
    name: str
    url: str
    status: str
    label: str
    digest: str
    #: why there is no MD5, or why it is not the expected one
    reason: str
    #: id of its job; None where the line could not be read
    job: str | None


class Table(NamedTuple):
    """A page of lines."""

    title: str
    rows: list[Line]
    #: where the lines begin, and where they go on; empty: here, nowhere
    first: str
    next: str


@dataclass(frozen=True)
class Report:
    """The texts of a batch for the template, which escapes them."""

    batch: Batch
    title: str
    #: the state in a word
    status: str
    #: how much has ended, in percent; empty at the end
    progress: str
    #: files, bytes, rate, time left
    figures: str
    #: the bar in words
    summary: str
    shares: list[Share]
    choices: list[Choice]
    errors: list[Error]
    can_retry: bool
    facts: list[Fact]
    table: Table


def make_report(
    batch: Batch,
    result: Result,
    part: Part,
    entries: Sequence[Entry],
    language: Language,
    now: float,
) -> Report:
    """Describe `batch` to people; `entries` are up to one more than PAGE_LINES from `part` on."""
    counts, text = result.counts, language.text
    choices = _choices(counts, part, language)
    return Report(
        batch=batch,
        title=batch.name or text["list_of"].format(count=language.number(counts.total)),
        status=text[batch.status],
        progress="" if batch.ended else language.percent(_ended(counts), counts.total),
        figures=" · ".join(_figures(batch, result, language, now)),
        summary=", ".join(f"{choice.label} {choice.number}" for choice in choices[1:]),
        shares=_shares(counts),
        choices=choices,
        errors=[_error(error, language) for error in result.errors],
        can_retry=batch.ended and bool(counts.failed or counts.canceled),
        facts=_facts(batch, language),
        table=_table(entries, part, language),
    )


def _ended(counts: Counts) -> int:
    return counts.total - counts.waiting - counts.running


def _figures(batch: Batch, result: Result, language: Language, now: float) -> list[str]:
    """Tell files, bytes, rate and time left; the rate is the mean from the submission on."""
    text, done, total = language.text, _ended(result.counts), result.counts.total
    shown = [
        text["files_done"].format(done=language.number(done), total=language.number(total)),
        language.size(result.bytes),
    ]
    seconds = (batch.finished_at or now) - batch.created_at
    if batch.ended:
        return [*shown, text["took"].format(time=language.duration(seconds))]
    if not done or batch.ends:  # since it was retried its mean tells nothing
        return shown
    rate = done / max(1.0, seconds)
    return [
        *shown,
        text["files_rate"].format(number=language.number(rate, 1 if rate < 10 else 0)),
        text["left"].format(time=language.duration(max(1.0, (total - done) / rate))),
    ]


def _shares(counts: Counts) -> list[Share]:
    shares, start = [], 0.0
    for status in LABELS_OF_STATUSES:
        width = 100 * getattr(counts, status) / max(1, counts.total)
        if width:
            shares.append(Share(status, round(start, 3), round(width, 3)))
        start += width
    return shares


def _choices(counts: Counts, part: Part, language: Language) -> list[Choice]:
    labels = {"": "all", **LABELS_OF_STATUSES}
    numbers = {"": counts.total, **counts._asdict()}
    return [
        Choice(
            status,
            language.text[label],
            language.number(numbers[status]),
            Part(status).href,
            status == part.status,
        )
        for status, label in labels.items()
        if numbers[status] or status in (*ALWAYS_OFFERED, part.status)
    ]


def _error(error: ErrorCount, language: Language) -> Error:
    return Error(language.kind(error.code), language.number(error.count), error.lines)


def _facts(batch: Batch, language: Language) -> list[Fact]:
    text = language.text
    digests = ", ".join(LABELS[name] for name in ("md5", *batch.digests))
    facts = [
        Fact(text["format"], batch.format),
        Fact(text["digests"], digests),
        moment(text["created_at"], batch.created_at, language),
    ]
    if batch.finished_at:
        facts.append(moment(text["finished_at"], batch.finished_at, language))
    if batch.mail != "none":
        mail = f"mail_{batch.mail}" if batch.ended else "mail_promised"
        facts.append(Fact(text["mail"], text[mail]))
    return facts


def _table(entries: Sequence[Entry], part: Part, language: Language) -> Table:
    shown = entries[:PAGE_LINES]
    title = language.text["lines_title"]
    if shown and not part.status:
        first, last = (language.number(shown[place].position) for place in (0, -1))
        title = language.text["lines_from"].format(first=first, last=last)
    return Table(
        title,
        rows=[_line(entry, language) for entry in shown],
        first=part._replace(after=0).href if part.after else "",
        next=part._replace(after=shown[-1].position).href if len(entries) > PAGE_LINES else "",
    )


def _line(entry: Entry, language: Language) -> Line:
    return Line(
        position=language.number(entry.position),
        name=entry.name or (basename_of(entry.url) if entry.url else ""),
        url=entry.url or entry.sent,
        status=entry.status,
        label=language.text[LABELS_OF_STATUSES[entry.status]],
        digest=entry.digests.get("md5", ""),
        reason=_reason(entry, language),
        job=entry.job_id,
    )


def _reason(entry: Entry, language: Language) -> str:
    if entry.status == "mismatched":
        expected = {"size": entry.expected_size, **entry.expected}
        names = differing(expected, {"size": entry.size, **entry.digests})
        return language.text["mismatched"].format(different=name_list(names, language.text))
    if entry.status == "failed":
        return language.reason(entry.error_code or "", entry.error_message or "")
    return ""
