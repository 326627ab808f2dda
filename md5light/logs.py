"""Log lines on standard error: one event a line, as key=value or JSON."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO

from md5light.times import rfc3339

if TYPE_CHECKING:
    from md5light.config import LogConfig

#: id of the request that this thread answers, a field of each of its lines
request_id: ContextVar[str] = ContextVar("request_id", default="")

#: a value without quotes: printable ASCII without spaces, quotes and equals signs
PLAIN = re.compile("[!#-<>-~]+")

#: systemd's priorities (sd-daemon(3))
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


class Log:
    """A logger whose lines are an event's name and its fields: `log.info("submitted", job=id)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """Log an error with the traceback of the exception being handled, still on one line."""
        self._logger.error(event, extra={"fields": fields}, exc_info=True)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            # Logger.log would also look for the caller's file and line, which are not logged.
            record = self._logger.makeRecord(
                self._logger.name, level, "", 0, event, (), None, extra={"fields": fields}
            )
            self._logger.handle(record)


class Outage:
    """An outage of something that many threads use: a log line when it begins and when it ends.

    It ends with the first success at least `quiet_seconds` after the last failure, so that an
    outage in some of the threads makes two lines, too. `fail` and `succeed` may be called from any
    thread.
    """

    def __init__(self, log: Log, begin: str, end: str, *, quiet_seconds: float = 0) -> None:
        """Write the events `begin` and `end` to `log`."""
        self._log = log
        self._begin, self._end = begin, end
        self._quiet_seconds = quiet_seconds
        self._changing = threading.Lock()
        self._began_at: float | None = None
        self._failed_at = 0.0

    @property
    def lasts(self) -> bool:
        return self._began_at is not None

    def fail(self, **fields: object) -> None:
        """Note a failure; the first of an outage is logged with `fields`."""
        with self._changing:
            self._failed_at = time.monotonic()
            if self._began_at is None:
                self._began_at = self._failed_at
                self._log.error(self._begin, **fields)

    def succeed(self) -> None:
        """Note a success."""
        if self._began_at is None:  # the usual case needs no lock
            return
        with self._changing:
            now = time.monotonic()
            if self._began_at is not None and now - self._failed_at >= self._quiet_seconds:
                self._log.info(self._end, seconds=now - self._began_at)
                self._began_at = None


class TextFormatter(logging.Formatter):
    """time=… level=… event=… key=value …; a value that is not one plain word is a JSON string."""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join([f"{key}={_word(value)}" for key, value in _fields(record).items()])


class JSONFormatter(logging.Formatter):
    """The same fields as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        # In ASCII, which is valid in every locale.
        return json.dumps(_fields(record), separators=(",", ":"), default=str)


class _JournalFormatter(logging.Formatter):
    """Begins each line of `formatter` with its priority, for systemd's journal."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        return f"<{PRIORITIES[record.levelname.lower()]}>{self._formatter.format(record)}"


def setup(config: LogConfig | None = None, *, verbose: bool = False) -> None:
    """Send the log to standard error as configured, without a configuration as text.

    `verbose` overrides the level with debug.
    """
    formatter = JSONFormatter() if config and config.format == "json" else TextFormatter()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JournalFormatter(formatter) if _is_journal(sys.stderr) else formatter)
    # These are not logged, so logging need not collect them (logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.raiseExceptions = False  # a line that can't be written must not cause a traceback
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)  # libraries log only warnings and errors
    level = config.level if config else "info"
    logging.getLogger("md5light").setLevel("DEBUG" if verbose else level.upper())


def _is_journal(stream: TextIO) -> bool:
    """Tell whether systemd's journal reads `stream`.

    $JOURNAL_STREAM names its device and inode (systemd.exec(5)).
    """
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # the stream is not a file
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = {
        "time": rfc3339(record.created),
        "level": record.levelname.lower(),
        "event": record.getMessage(),
    }
    fields.update(getattr(record, "fields", {}))
    if request := request_id.get():
        fields["request"] = request
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _word(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text)
