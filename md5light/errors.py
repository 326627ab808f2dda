"""Everything md5light raises on purpose.

Md5lightError
├── ConfigError            wrong configuration: a command exits with 78
├── DatabaseError          the database can't be opened: a command exits with 1
│   └── DatabaseUnavailable    it can't be read or written now: /submit answers 503
├── OwnAddressesUnknown    the guard can't tell which addresses are this machine's: a command exits with 1
├── NotDone                what a command was asked for failed or does not exist: it exits with 1
├── Refused                a submission that is not accepted: /submit answers 400, a command exits with 2
├── Stopped                a download was ended by the worker itself, not by what it met
└── Failure                a download or a mail did not succeed
    ├── TemporaryFailure       worth another attempt
    │   ├── OutOfResources         this machine lacked something: no attempt of the job's
    │   └── OperatorFailure        not before the operator has changed something
    └── PermanentFailure       never will
"""

from __future__ import annotations


class Md5lightError(Exception):
    """The root: whoever catches it catches all that md5light raises on purpose, and nothing else."""


class ConfigError(Md5lightError):
    """The configuration is wrong; the message is one line naming file, section, key and value."""


class DatabaseError(Md5lightError):
    """The database can't be used; the message is one line that names it."""


class DatabaseUnavailable(DatabaseError):
    """The database was opened but does not answer or can't be written now; trying later may help."""


class OwnAddressesUnknown(Md5lightError):
    """The machine's own addresses can't be read, so none can be judged; the message is one line."""


class NotDone(Md5lightError):
    """A command of the administration failed; the message is one line."""


class Refused(Md5lightError):
    """A submission is not accepted; `code` is one of the documented codes of HTTP errors."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Stopped(Md5lightError):
    """A download was ended from inside (a cancel, a stop, a lost lease): there is nothing to tell of it."""


class Failure(Md5lightError):
    """A download or a mail did not succeed.

    `code` is one of the documented error codes; `message` is a sentence for people that holds no byte of
    what the other side sent and no resolved address. `detail` may hold both: it is for the eyes of the
    one who asked, never for a log or the database.
    """

    def __init__(self, code: str, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail


class TemporaryFailure(Failure):
    """A failure worth another attempt, not before `retry_after` seconds where the other side asked for that."""

    def __init__(
        self, code: str, message: str, *, detail: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(code, message, detail=detail)
        self.retry_after = retry_after


class OutOfResources(TemporaryFailure):
    """This machine had no file descriptor, memory or thread; that says nothing about the job."""


class OperatorFailure(TemporaryFailure):
    """A failure that lasts until the operator changes the configuration, or what it names."""


class PermanentFailure(Failure):
    """A failure that another attempt would meet again."""
