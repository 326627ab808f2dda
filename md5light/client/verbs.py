"""The verbs of the client; each takes the arguments of its command and returns the exit code."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from md5light.client import report
from md5light.client.answers import Batch
from md5light.client.body import Body, open_list
from md5light.client.output import check_writable, form_for, store
from md5light.client.progress import Progress
from md5light.client.report import complain
from md5light.client.service import Service
from md5light.client.waiting import wait_for_end
from md5light.errors import OutOfTime
from md5light.finding import ALGORITHMS

DEFAULT_SERVER = "http://127.0.0.1:8080"


def submit(arguments: argparse.Namespace) -> int:
    """Submit lists as one batch; with --wait or -o also wait, and write the manifest."""
    if not (arguments.wait or arguments.output):
        print(_submit(_service(arguments), arguments))
        return 0
    check_writable(arguments.output)
    progress = Progress(quiet=arguments.quiet)
    service = _service(arguments, progress.say)
    batch_id = _submit(service, arguments)
    print(batch_id, file=sys.stderr)
    return _wait(service, progress, batch_id, arguments)


def verify(arguments: argparse.Namespace) -> int:
    """Submit lists with sums, wait, and print as `md5sum -c` does."""
    progress = Progress(quiet=arguments.quiet)
    service = _service(arguments, progress.say)
    batch_id = _submit(service, arguments)
    if not arguments.quiet:
        print(batch_id, file=sys.stderr)
    with _resumable(batch_id, arguments), tempfile.TemporaryFile() as file:
        batch = wait_for_end(service, batch_id, progress)
        service.manifest(batch_id, file, patiently=True, format="ndjson")
        entries = report.entries(file, service.url)
        statuses = report.print_checked(entries, quiet=arguments.quiet)
    report.warn_as_md5sum(statuses)
    return 1 if batch.bad or not statuses["matched"] else 0


def wait(arguments: argparse.Namespace) -> int:
    """Wait for the end of a batch; with -o or --manifest also write the manifest."""
    check_writable(arguments.output)
    progress = Progress(quiet=arguments.quiet)
    return _wait(_service(arguments, progress.say), progress, arguments.id, arguments)


def status(arguments: argparse.Namespace) -> int:
    """Print the state of a batch."""
    batch = _service(arguments).batch(arguments.id)
    _print_batch(batch, arguments)
    return 1 if batch.bad else 0


def manifest(arguments: argparse.Namespace) -> int:
    """Write the manifest as it stands."""
    check_writable(arguments.output)
    store(_fetch(_service(arguments), arguments.id, arguments), arguments.output)
    return 0


def retry(arguments: argparse.Namespace) -> int:
    """Have the failed and canceled lines of a batch tried again."""
    service = _service(arguments)
    service.retry(arguments.id)
    _print_changed(service.batch(arguments.id), arguments)
    return 0


def cancel(arguments: argparse.Namespace) -> int:
    """Cancel the unfinished lines of a batch."""
    _print_changed(_service(arguments).cancel(arguments.id), arguments)
    return 0


# --- submitting and waiting -----------------------------------------------------------------------


def _submit(service: Service, arguments: argparse.Namespace) -> str:
    options = {
        "format": arguments.format,
        "base": arguments.base,
        "digests": ",".join(_digests(arguments)),
        "name": arguments.name,
        "email": arguments.mail,
        "skip_invalid": "yes" if arguments.skip_invalid else "",
    }
    given = {name: value for name, value in options.items() if value}
    with contextlib.ExitStack() as stack:
        listed = open_list(arguments.lists, arguments.format, arguments.bag, stack)
        body = Body(given, listed)
        return service.submit(body, body.content_type, os.urandom(16).hex())


def _wait(
    service: Service, progress: Progress, batch_id: str, arguments: argparse.Namespace
) -> int:
    """Wait for the end, write the manifest that is asked for, and say what came of it."""
    began = time.monotonic()
    with _resumable(batch_id, arguments):
        batch = wait_for_end(service, batch_id, progress)
        if arguments.run == "submit" or arguments.manifest or arguments.output:
            store(_fetch(service, batch_id, arguments, patiently=True), arguments.output)
        if batch.bad or not arguments.quiet:
            report.summarize(service, batch, time.monotonic() - began)
    return 1 if batch.bad else 0


@contextlib.contextmanager
def _resumable(batch_id: str, arguments: argparse.Namespace) -> Iterator[None]:
    """Say how to go on, where the waiting ends before the batch does."""
    try:
        yield
    except (KeyboardInterrupt, OutOfTime):
        complain(f"the batch goes on; to wait again: {_again(batch_id, arguments)}")
        raise


def _again(batch_id: str, arguments: argparse.Namespace) -> str:
    """Return the command that takes up the waiting."""
    words = ["md5light", "wait", batch_id]
    if arguments.server:
        words += ["--server", Service(arguments.server).url]
    given = {flag: getattr(arguments, flag, None) for flag in ("cafile", "names", "output")}
    if arguments.run == "submit" or getattr(arguments, "manifest", None):
        given["manifest"] = _form(arguments)
    for flag, value in given.items():
        words += [f"--{flag}", value] if value else []
    if getattr(arguments, "partial", False):
        words.append("--partial")
    return shlex.join(words)


def _form(arguments: argparse.Namespace) -> str:
    return arguments.manifest or form_for(arguments.output)


def _digests(arguments: argparse.Namespace) -> list[str]:
    """Return the digests that are asked for, and the one that the manifest is made of."""
    wanted = list(arguments.digest)
    if (
        arguments.run == "submit"
        and (algorithm := _form(arguments).removesuffix("sum")) in ALGORITHMS
    ):
        wanted.append(algorithm)
    return [algorithm for algorithm in dict.fromkeys(wanted) if algorithm != "md5"]


def _fetch(
    service: Service, batch_id: str, arguments: argparse.Namespace, *, patiently: bool = False
) -> Callable[..., None]:
    options = {
        "format": _form(arguments),
        "names": arguments.names,
        "partial": "yes" if arguments.partial else "",
    }
    given = {name: value for name, value in options.items() if value}
    return functools.partial(service.manifest, batch_id, patiently=patiently, **given)


# --- the server and what is printed ---------------------------------------------------------------


def _service(arguments: argparse.Namespace, notice: Callable[[str], object] = complain) -> Service:
    location = arguments.server or os.environ.get("MD5LIGHT_SERVER") or DEFAULT_SERVER
    limit = getattr(arguments, "timeout", None)
    deadline = math.inf if limit is None else time.monotonic() + limit
    return Service(location, arguments.cafile or "", deadline=deadline, notice=notice)


def _print_batch(batch: Batch, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps(batch.described, sort_keys=True, separators=(",", ":")))
        return
    for name, value in report.rows(batch.described):
        print(f"{name:20}  {value}")


def _print_changed(batch: Batch, arguments: argparse.Namespace) -> None:
    if arguments.json:
        _print_batch(batch, arguments)
    else:
        print(f"{batch.id} {batch.status}")
