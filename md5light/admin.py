"""Administration: what `md5light` does besides parsing its arguments."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from md5light import config as configuration
from md5light.config import Config
from md5light.errors import ConfigError, DatabaseError, Failure, NotDone
from md5light.job import Job, describe
from md5light.mail import smtp
from md5light.mail.addresses import check_address
from md5light.mail.mailer import Mailer
from md5light.mail.messages import compose_test
from md5light.queue import POSTGRESQL, open_database
from md5light.queue.copy import copy
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.totals import Snapshot, Totals

#: seconds that `config check` waits for the mail server
REACH_SECONDS = 5.0

#: what each SQLite file begins with (https://www.sqlite.org/fileformat.html), unless it is empty
SQLITE_MAGIC = b"SQLite format 3\0"

#: permission of those who neither own a file nor are in its group to read it
OTHERS_READ = 0o004

# --- the configuration -----------------------------------------------------------------------------------------


def config_check(config: Config, arguments: argparse.Namespace) -> None:
    """Say that the configuration is right; what is wrong in itself was said when it was read."""
    file = configuration.find(arguments.config)
    if problem := _database_problem(config.queue.database):
        raise ConfigError(f"{file or 'the defaults'}: [queue] {problem}")
    for warning in _warnings(config, file):
        print(f"md5light: warning: {warning}", file=sys.stderr)
    print(f"{file or 'the defaults'}: ok")


def config_show(config: Config, arguments: argparse.Namespace) -> None:  # noqa: ARG001 - takes no more
    """Print the configuration as an INI file, with secrets masked."""
    print(configuration.show(config))


def _database_problem(location: str) -> str:
    """Tell why the jobs can't be kept there; empty: they can."""
    if not location.startswith(POSTGRESQL):
        problem = _file_problem(Path(location))
        return problem and f"database = {location}: {problem}"
    try:
        open_database(location, durable=False).close()
    except DatabaseError as error:  # it names the database, but not the password
        return str(error)
    return ""


def _file_problem(path: Path) -> str:
    """Tell why an SQLite database can't be there, without making or changing one."""
    try:
        tempfile.TemporaryFile(dir=path.parent).close()  # SQLite writes its log beside the file
    except OSError as error:
        return f"its folder can't be written: {error.strerror}"
    try:
        with path.open("r+b") as file:
            start = file.read(len(SQLITE_MAGIC))
    except FileNotFoundError:  # server or pool will make it
        return ""
    except OSError as error:
        return f"can't be written: {error.strerror}"
    return "" if start in (b"", SQLITE_MAGIC) else "is not an SQLite database"


def _warnings(config: Config, file: Path | None) -> Iterator[str]:
    """Name what may be meant but had better be looked at."""
    stop, lease, smtp_config = (
        config.worker.shutdown_seconds,
        config.queue.lease_seconds,
        config.smtp,
    )
    if stop > lease:
        yield (
            f"[worker] shutdown_seconds = {stop:g} is more than [queue] lease_seconds = {lease:g}: a stop may take "
            "longer than a killed worker's jobs would wait"
        )
    secret = Path(smtp_config.password_file) if smtp_config.password_file else file
    if smtp_config.password and secret and secret.stat().st_mode & OTHERS_READ:
        yield f"{secret}: holds a password and can be read by everybody on this machine; chmod o-r would end that"
    if smtp_config.host and (
        problem := smtp.unreachable(smtp_config, min(smtp_config.timeout, REACH_SECONDS))
    ):
        yield f"[smtp] host = {smtp_config.host}, port = {smtp_config.port}: can't be reached now: {problem}"


# --- jobs ------------------------------------------------------------------------------------------------------


def jobs_list(config: Config, arguments: argparse.Namespace) -> None:
    """Print the newest jobs."""
    with _queue(config) as queue:
        jobs = queue.newest(arguments.limit, arguments.status)
    if arguments.json:
        _print_json([describe(job) for job in jobs])
    else:
        _print_table([("ID", "STATUS", "ATTEMPTS", "SUBMITTED", "RESULT", "URL"), *map(_row, jobs)])


def jobs_show(config: Config, arguments: argparse.Namespace) -> None:
    """Print all that may be known of a job."""
    with _queue(config) as queue:
        job = _existing(queue, arguments.id)
    if arguments.json:
        _print_json(describe(job))
    else:
        _print_table(_flattened(describe(job)))


def jobs_retry(config: Config, arguments: argparse.Namespace) -> None:
    """Make a failed or canceled job due anew."""
    with _queue(config) as queue:
        job = _existing(queue, arguments.id)
        if not queue.retry(job.id):
            raise NotDone(
                f"job {job.id} is {job.status}: only a failed or canceled job can be tried again"
            )
        _print_changed(_existing(queue, job.id), arguments)


def jobs_cancel(config: Config, arguments: argparse.Namespace) -> None:
    """End an unfinished job."""
    with _queue(config) as queue:
        job = _existing(queue, arguments.id)
        if not queue.cancel(job.id):
            raise NotDone(f"job {job.id} has ended: it is {_existing(queue, job.id).status}")
        _print_changed(_existing(queue, job.id), arguments)


def jobs_purge(config: Config, arguments: argparse.Namespace) -> None:
    """Remove jobs that ended long ago, a few in each transaction so that the service goes on meanwhile."""
    removed = 0
    with _queue(config) as queue:
        while rows := queue.purge(arguments.older_than):
            removed += rows
    if arguments.json:
        _print_json({"removed": removed})
    else:
        print(f"{removed} {'job' if removed == 1 else 'jobs'} removed")


def _existing(queue: Queue, job_id: str) -> Job:
    job = queue.get(job_id)
    if job is None:
        raise NotDone(f"there is no job {_visible(job_id)}")
    return job


def _row(job: Job) -> tuple[object, ...]:
    submitted = str(describe(job)["created_at"])[:19] + "Z"
    result = (
        job.md5
        or job.error_code
        or (f"{job.bytes_done} bytes" if job.status == "running" else None)
    )
    return job.id, job.status, f"{job.attempts}/{job.max_attempts}", submitted, result, job.url


def _print_changed(job: Job, arguments: argparse.Namespace) -> None:
    if arguments.json:
        _print_json(describe(job))
    else:
        print(f"{job.id} {job.status}")


def queue_copy(config: Config, arguments: argparse.Namespace) -> None:
    """Copy the jobs of another database into the configured one."""
    if _is_same(arguments.source, config.queue.database):
        raise NotDone(f"{arguments.source} is the database that the jobs would be copied into")
    jobs = copied = 0
    with (
        contextlib.closing(open_database(arguments.source, durable=False, create=False)) as source,
        contextlib.closing(open_database(config.queue.database, durable=True)) as target,
    ):
        for found, new in copy(source, target):
            jobs, copied = jobs + found, copied + new
    if arguments.json:
        _print_json({"copied": copied, "present": jobs - copied})
    else:
        print(f"{copied} of {jobs} jobs copied, {jobs - copied} were there already")


def _is_same(one: str, other: str) -> bool:
    files = Path(one), Path(other)
    return one == other or (all(file.exists() for file in files) and files[0].samefile(files[1]))


# --- the service -----------------------------------------------------------------------------------------------


def stats(config: Config, arguments: argparse.Namespace) -> None:
    """Print what goes on, and what has been counted since the database was made."""
    with _database(config) as database:
        counted = _counted(Totals(database).snapshot())
    if arguments.json:
        _print_json(counted)
    else:
        _print_table(_flattened(counted))


def _counted(snapshot: Snapshot) -> dict[str, object]:
    """Give a snapshot the form that is printed."""
    failures = {
        code: jobs
        for (status, code), jobs in sorted(snapshot.finished.items())
        if status == "failed"
    }
    jobs = sum(snapshot.durations.values())
    return {
        "unfinished": {
            status: snapshot.unfinished.get(status, 0) for status in ("queued", "running")
        },
        "oldest_waiting_seconds": round(snapshot.oldest_waiting_seconds, 3),
        "finished": {
            "done": snapshot.finished.get(("done", ""), 0),
            "failed": sum(failures.values()),
            "canceled": snapshot.finished.get(("canceled", ""), 0),
        },
        "failures": failures,
        "mean_seconds": round(snapshot.duration_seconds / jobs, 3) if jobs else None,
        "hashed_bytes": snapshot.hashed_bytes,
        "mails": {
            "waiting": snapshot.mails_waiting,
            "sent": snapshot.mails.get("sent", 0),
            "failed": snapshot.mails.get("failed", 0),
        },
        "workers": snapshot.workers_alive,
        "last_worker_sign_seconds": snapshot.last_sign_seconds
        and round(snapshot.last_sign_seconds, 3),
    }


def mail_test(config: Config, arguments: argparse.Namespace) -> None:
    """Send a mail, naming each step and how it went.

    The server's words may hold the address, so they go to standard output and not where the log goes.
    """
    to_maildir = not config.smtp.host
    recipient = check_address(
        arguments.address, local_domains=config.smtp.local_domains or to_maildir
    )
    steps: list[str] = []

    def begin(step: str) -> None:
        if steps:
            _print_step(steps[-1], "ok")
        steps.append(step)

    with contextlib.closing(Mailer(config.smtp)) as mailer:
        try:
            mailer.send(compose_test(config.smtp, recipient), recipient, begin)
        except Failure as failure:
            problem = _visible(f"{failure.message} {failure.detail}".rstrip())
            _print_step(steps[-1], f"failed: {problem}")
            raise NotDone(f"the mail was not delivered: {steps[-1]} failed") from None
    _print_step(steps[-1], "ok")
    if to_maildir:
        print(f"The mail is kept in {config.smtp.maildir}, since [smtp] host is empty.")
    else:
        print(f"{config.smtp.host} has taken the mail over.")


def _print_step(step: str, text: str) -> None:
    print(f"{step:<10}  {text}", flush=True)


# --- access and output -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _database(config: Config) -> Iterator[Database]:
    """Open the database of a service that has run: none is made here."""
    with contextlib.closing(
        open_database(config.queue.database, durable=True, create=False)
    ) as database:
        yield database


@contextlib.contextmanager
def _queue(config: Config) -> Iterator[Queue]:
    with _database(config) as database:
        yield Queue.configured(database, config)


def _print_json(value: object) -> None:
    print(json.dumps(value, sort_keys=True, separators=(",", ":")))  # ASCII: right in every locale


def _print_table(rows: Iterable[Sequence[object]]) -> None:
    """Print columns that are as wide as their widest cell."""
    lines = [["-" if cell is None else _visible(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def _flattened(values: dict[str, object], within: str = "") -> Iterator[tuple[str, object]]:
    """Make rows of two columns from a JSON object and the objects in it."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{within}{key} ")
        else:
            yield f"{within}{key}", value


def _visible(text: str) -> str:
    """Show what a terminal might obey (a server chose its final URL and ETag) as escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
