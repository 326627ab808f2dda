"""/metrics: the state of the service in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

import platform
from collections.abc import Iterable

from md5light import __version__
from md5light.queue.totals import BUCKETS, Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[str, float]


def render(snapshot: Snapshot) -> str:
    """Write `snapshot` as Prometheus reads it (https://prometheus.io/docs/instrumenting/exposition_formats/)."""
    totals = snapshot.totals
    version = f'{{version="{__version__}",python="{platform.python_version()}"}}'
    families: list[tuple[str, str, str, list[Sample]]] = [
        ("jobs", "gauge", "Unfinished jobs by status.", _unfinished(snapshot.unfinished)),
        (
            "oldest_waiting_seconds",
            "gauge",
            "Age of the job that has waited longest.",
            [("", snapshot.oldest_waiting_seconds)],
        ),
        ("jobs_finished_total", "counter", "Finished jobs by status and error code.", _finished(totals)),
        (
            "hashed_bytes_total",
            "counter",
            "Bytes of done downloads.",
            [("", totals.get(("hashed_bytes", ""), 0))],
        ),
        ("mails_total", "counter", "Mails by result.", _mails(totals)),
        ("mails_waiting", "gauge", "Mails that are owed.", [("", snapshot.mails_waiting)]),
        ("workers", "gauge", "Worker processes alive.", [("", snapshot.workers_alive)]),
        ("build_info", "gauge", "Version of the program.", [(version, 1)]),
    ]
    lines = [line for family in families for line in _family(*family)]
    return "\n".join([*lines, *_durations(totals), ""])


def _family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> list[str]:
    head = [f"# HELP md5light_{name} {meaning}", f"# TYPE md5light_{name} {kind}"]
    return head + [f"md5light_{name}{labels} {_number(value)}" for labels, value in samples]


def _unfinished(jobs: dict[str, int]) -> list[Sample]:
    return [(f'{{status="{status}"}}', jobs.get(status, 0)) for status in ("queued", "running")]


def _finished(totals: dict[tuple[str, str], float]) -> list[Sample]:
    samples = [("done", ""), ("canceled", "")]
    samples += [tuple(label.split(" ")) for metric, label in sorted(totals) if metric == "finished" and " " in label]  # type: ignore[misc]
    return [
        (f'{{status="{status}",code="{code}"}}', totals.get(("finished", f"{status} {code}".rstrip()), 0))
        for status, code in samples
    ]


def _mails(totals: dict[tuple[str, str], float]) -> list[Sample]:
    return [(f'{{result="{result}"}}', totals.get(("mails", result), 0)) for result in ("failed", "sent")]


def _durations(totals: dict[tuple[str, str], float]) -> list[str]:
    """Write the histogram, whose buckets hold all that are not longer."""
    name, sofar, samples = "job_duration_seconds", 0.0, []
    for end in (*BUCKETS, float("inf")):
        sofar += totals.get(("duration_bucket", repr(end)), 0)
        samples.append((f'_bucket{{le="{_number(end)}"}}', sofar))
    samples += [("_sum", totals.get(("duration_sum", ""), 0)), ("_count", sofar)]
    return _family(name, "histogram", "Time from submission to the end of a job.", samples)


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
