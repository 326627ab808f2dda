"""Everything md5light raises on purpose.

Md5lightError                  has a code and a message
├── ConfigError                wrong configuration: a command exits with 78
├── DatabaseError              the database can't be opened: a command exits with 1
│   ├── OldSchema              the server or the pool brings it up to date at its start
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
    │   └── OperatorFailure    not before the operator has changed something
    └── PermanentFailure       never will
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
    """The database has an older md5light's schema, or none: server or pool bring it up to date."""


class DatabaseUnavailable(DatabaseError):
    """The database was opened but can't be read or written now; trying later may help."""

    code = "database_unavailable"


class DatabaseReplaced(DatabaseUnavailable):
    """The database's file is no longer the one that was opened: only a new process can help."""


class ListenError(Md5lightError):
    """The address can't be listened on; the message is one line that names it."""

    code = "listen_error"


class OwnAddressesUnknown(Md5lightError):
    """The machine's own addresses can't be read, so none can be judged; the message is one line."""

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
    """There are as many unfinished jobs as the configuration admits."""

    code = "queue_full"


class Stopped(Md5lightError):
    """The worker ended a download or a delivery (a cancel, a stop, a lost lease): no failure."""

    code = "stopped"


class Failure(Md5lightError):
    """A download or a mail did not succeed.

    `code` is one of the documented error codes; `message` is a sentence for people that holds no
    byte of what the other side sent and no resolved address. `detail` may hold both: it is for the
    terminal of the person who asked, never for a log or the database.
    """

    def __init__(self, code: str, message: str, *, detail: str = "") -> None:
        super().__init__(message, code=code)
        self.detail = detail
        #: code and message that clients are told
        self.told = (code, message)
        #: it is a host's word, which asks for rest or can't be reached: it says nothing of the file
        self.of_host = False
        #: it was met at another host, to which a redirect had led
        self.redirected = False
        #: it came before the server had answered
        self.unanswered = False
        #: another attempt may be the last one
        self.last_chance = False

    def disguise(self, code: str, message: str) -> None:
        """Have clients told something else than the log."""
        self.told = (code, message)


class TemporaryFailure(Failure):
    """A failure worth another attempt, after `retry_after` seconds where the other side said so."""

    def __init__(
        self, code: str, message: str, *, detail: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(code, message, detail=detail)
        self.retry_after = retry_after


class OutOfResources(TemporaryFailure):
    """This machine had no file descriptor, memory or thread; that says nothing about the job."""


class NoPlace(OutOfResources):
    """As many downloads as may be are connected to the server's address."""


class OperatorFailure(TemporaryFailure):
    """A failure that lasts until the operator changes the configuration, or what it names."""


class PermanentFailure(Failure):
    """A failure that another attempt would meet again."""
