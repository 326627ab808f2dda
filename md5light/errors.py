"""Everything md5light raises on purpose.

Md5lightError                  has a code and a message
├── ConfigError                wrong configuration: a command exits with 78
├── DatabaseError              the database can't be opened: a command exits with 1
│   ├── OldSchema              server and pool migrate it when they start
│   └── DatabaseUnavailable    it can't be read or written now: /submit answers 503
│       └── DatabaseReplaced   its file was deleted or replaced: the process ends with 1
├── ListenError                the server can't listen: it exits with 1
├── OwnAddressesUnknown        the guard can't read this machine's addresses: exit 1
├── NotDone                    a command failed, or its object does not exist: it exits with 1
├── Refused                    a submission is not accepted: 400, a command exits with 2
├── Unreachable                no md5light answers the client: it exits with 69
├── OutOfTime                  the client's --timeout has passed: it exits with 75
├── TooMany                    a client or a recipient is above its limit: 429
├── QueueFull                  there are too many unfinished jobs: 503
├── Stopped                    the worker itself ended a download or a delivery
└── Failure                    a download or a mail did not succeed
    ├── TemporaryFailure       worth another attempt
    │   ├── OutOfResources     this machine lacked something: the attempt does not count
│   │   └── NoPlace        enough downloads are connected to the address
    │   └── OperatorFailure    lasts until the operator changes something
    └── PermanentFailure       another attempt would fail, too
"""

from __future__ import annotations


class Md5lightError(Exception):
    """The root of the tree: `code` is for programs, `message` is a sentence for people."""

    code = "internal_error"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class ConfigError(Md5lightError):
    """The configuration is wrong; the message is one line naming file, section, key and value."""

    code = "config_error"


class DatabaseError(Md5lightError):
    """The database can't be used; the message is one line that names it, never a password."""

    code = "database_error"


class OldSchema(DatabaseError):
    """The database has the schema of an older md5light, or none; server and pool migrate it."""


class DatabaseUnavailable(DatabaseError):
    """The database was opened but can't be read or written now; trying later may help."""

    code = "database_unavailable"


class DatabaseReplaced(DatabaseUnavailable):
    """The database's file is no longer the one that was opened: only a new process can help."""


class ListenError(Md5lightError):
    """The address can't be listened on; the message is one line that names it."""

    code = "listen_error"


class OwnAddressesUnknown(Md5lightError):
    """The machine's own addresses can't be read, so the guard can allow none; one line."""

    code = "own_addresses_unknown"


class NotDone(Md5lightError):
    """A command of the administration failed; the message is one line."""

    code = "not_done"


class Refused(Md5lightError):
    """A submission is not accepted; `code` is one of the documented codes of HTTP errors."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code=code)


class Unreachable(Md5lightError):
    """The client can't reach the server, or what answers is not md5light; one line."""

    code = "unreachable"


class OutOfTime(Md5lightError):
    """The time that the client was given has passed; the batch goes on."""

    code = "out_of_time"


class TooMany(Md5lightError):
    """A client or a recipient is above its limit; it may try again in `retry_after` seconds."""

    def __init__(self, code: str, message: str, retry_after: float) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class QueueFull(Md5lightError):
    """There are as many unfinished jobs as the configuration allows."""

    code = "queue_full"


class Stopped(Md5lightError):
    """The worker ended a download or a delivery itself: canceled, stopping, or the lease lost."""

    code = "stopped"


class Failure(Md5lightError):
    """A download or a mail did not succeed.

    `code` is one of the documented error codes; `message` is a sentence for people, without any
    text of the other side and without resolved addresses. `detail` may contain both: it is shown
    only in the terminal of an administrator, never logged or stored.
    """

    def __init__(self, code: str, message: str, *, detail: str = "") -> None:
        super().__init__(message, code=code)
        self.detail = detail
        #: the code and message for clients
        self.told = (code, message)
        #: the host asks for rest or can't be reached: the failure is not about the file
        self.of_host = False
        #: it happened at another host, after a redirect
        self.redirected = False
        #: it happened before the server answered
        self.unanswered = False
        #: allow at most one more attempt
        self.last_chance = False

    def disguise(self, code: str, message: str) -> None:
        """Set a code and a message for clients that differ from those in the log."""
        self.told = (code, message)


class TemporaryFailure(Failure):
    """A failure worth another attempt, after `retry_after` seconds if the other side asked so."""

    def __init__(
        self, code: str, message: str, *, detail: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(code, message, detail=detail)
        self.retry_after = retry_after


class OutOfResources(TemporaryFailure):
    """This machine lacked a file descriptor, memory or a thread: no failure of the job."""


class NoPlace(OutOfResources):
    """The server's address has as many connections as are allowed."""


class OperatorFailure(TemporaryFailure):
    """A failure that lasts until the operator changes the configuration or the mail server."""


class PermanentFailure(Failure):
    """A failure that another attempt would repeat."""
