"""/metrics: the state of the service in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Sequence

from md5light import __version__
from md5light.batch import LINE_RESULTS
from md5light.queue.totals import BUCKETS, Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[str, float]

#: name, type, meaning and samples
Family = tuple[str, str, str, "Sequence[Sample]"]


def render(snapshot: Snapshot) -> str:
    """Write `snapshot` in the text format.

    https://prometheus.io/docs/instrumenting/exposition_formats/ describes it.
    """
    families = [
        *_job_families(snapshot),
        *_batch_families(snapshot),
        *_mail_families(snapshot),
        *_process_families(snapshot),
    ]
    lines = [line for family in families for line in _family(*family)]
    return "\n".join([*lines, *_durations(snapshot), ""])


def _job_families(snapshot: Snapshot) -> list[Family]:
    oldest = [("", snapshot.oldest_waiting_seconds)]
    return [
        ("jobs", "gauge", "Unfinished jobs by status.", _unfinished(snapshot.unfinished)),
        ("oldest_waiting_seconds", "gauge", "Age of the job that has waited longest.", oldest),
        (
            "jobs_finished_total",
            "counter",
            "Finished jobs by status and error code.",
            _finished(snapshot.finished),
        ),
        (
            "hashed_bytes_total",
            "counter",
            "Bytes of done downloads.",
            [("", snapshot.hashed_bytes)],
        ),
        (
            "hosts_resting",
            "gauge",
            "Hosts that asked for rest or could not be reached.",
            [("", snapshot.hosts_resting)],
        ),
        ("submitted_total", "counter", "Submissions by token.", _submitted(snapshot.submitted)),
    ]


def _batch_families(snapshot: Snapshot) -> list[Family]:
    batches, lines = snapshot.batches, snapshot.lines
    ends = [(f'{{status="{status}"}}', batches.get(status, 0)) for status in ("done", "canceled")]
    results = [(f'{{result="{result}"}}', lines.get(result, 0)) for result in LINE_RESULTS]
    return [
        ("batches", "gauge", "Running batches.", [("", batches["running"])]),
        ("batches_finished_total", "counter", "Ends of batches by status.", ends),
        ("lines_total", "counter", "Lines of ended batches by result.", results),
    ]


def _mail_families(snapshot: Snapshot) -> list[Family]:
    failing, oldest = [("", snapshot.mails_failing)], [("", snapshot.oldest_mail_seconds)]
    return [
        ("mails_total", "counter", "Mails by result.", _mails(snapshot.mails)),
        ("mails_waiting", "gauge", "Mails to be sent.", [("", snapshot.mails_waiting)]),
        ("mails_failing", "gauge", "Mails that have failed for more than a day.", failing),
        ("oldest_mail_seconds", "gauge", "Age of the mail that has waited longest.", oldest),
    ]


def _process_families(snapshot: Snapshot) -> list[Family]:
    version = f'{{version="{__version__}",python="{platform.python_version()}"}}'
    return [
        ("workers", "gauge", "Worker processes alive.", [("", snapshot.workers_alive)]),
        ("build_info", "gauge", "Version of the program.", [(version, 1)]),
    ]


def _family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> list[str]:
    head = [f"# HELP md5light_{name} {meaning}", f"# TYPE md5light_{name} {kind}"]
    return head + [f"md5light_{name}{labels} {_number(value)}" for labels, value in samples]


def _unfinished(jobs: dict[str, int]) -> list[Sample]:
    return [(f'{{status="{status}"}}', jobs.get(status, 0)) for status in ("queued", "running")]


def _finished(jobs: dict[tuple[str, str], int]) -> list[Sample]:
    ends = sorted({("done", ""), ("canceled", ""), *jobs})
    return [
        (f'{{status="{status}",code="{code}"}}', jobs.get((status, code), 0))
        for status, code in ends
    ]


def _submitted(by_token: dict[str, int]) -> list[Sample]:
    escapes = str.maketrans({"\\": r"\\", '"': r"\""})
    return [
        (f'{{token="{name.translate(escapes)}"}}', count)
        for name, count in sorted(by_token.items())
    ]


def _mails(mails: dict[str, int]) -> list[Sample]:
    return [(f'{{result="{result}"}}', mails.get(result, 0)) for result in ("failed", "sent")]


def _durations(snapshot: Snapshot) -> list[str]:
    """Write the histogram; each bucket counts all durations up to its bound."""
    name, sofar, samples = "job_duration_seconds", 0, []
    for end in BUCKETS:
        sofar += snapshot.durations.get(end, 0)
        samples.append((f'_bucket{{le="{_number(end)}"}}', float(sofar)))
    # After the clock was set back, a job may seem to have ended before its submission.
    samples += [("_sum", max(0.0, snapshot.duration_seconds)), ("_count", sofar)]
    return _family(name, "histogram", "Time from submission to the end of a job.", samples)


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
