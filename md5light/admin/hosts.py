"""`md5light hosts …`: hosts that asked for rest or could not be reached within the last hour."""

from __future__ import annotations

import argparse

from md5light.admin.access import queue_of
from md5light.admin.output import print_json, print_table, terminal_width
from md5light.config import Config
from md5light.queue.hosts import HostReport
from md5light.times import rfc3339

HEADS = ("HOST", "RUNNING", "WAITING", "ROOM", "RESTS UNTIL", "LAST WORD")


def hosts_list(config: Config, arguments: argparse.Namespace) -> None:
    """Print the hosts that were in trouble last."""
    with queue_of(config) as queue:
        reports = queue.hosts(arguments.limit)
    if arguments.json:
        print_json([_described(report) for report in reports])
    else:
        print_table([HEADS, *map(_row, reports)], terminal_width())


def _described(report: HostReport) -> dict[str, object]:
    return {
        "host": report.host,
        "running": report.running,
        "waiting": report.waiting,
        "room": report.room,
        "rests_until": rfc3339(report.rest_until),
        "last_word": {"code": report.error_code, "message": report.error_message},
    }


def _row(report: HostReport) -> tuple[object, ...]:
    until = rfc3339(report.rest_until)
    return (
        report.host,
        report.running,
        report.waiting,
        report.room,
        until and f"{until[:19]}Z",
        report.error_message,
    )
