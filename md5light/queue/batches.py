"""Batches: lists of many lines, from the first line stored to the one end that owes a mail.

The way of a batch: `begin` makes it, `add` stores its lines portion by portion, `publish` makes it
visible and its jobs due. From then on its jobs are jobs like others. `end_due` asks whether one of
them is unfinished, and ends the batch when there is none. What touches many rows (making jobs due,
cancel, retry, removal) is a sweep: it is noted with the batch, and done in portions. The states
of a batch are drawn in the schema.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import chain, islice

from md5light.batch import LINE_RESULTS, Batch, Counts, NewBatch, NewLine, Result, mail_id
from md5light.config import Config
from md5light.errors import DatabaseUnavailable, Md5lightError, QueueFull, Refused
from md5light.finding import Wanted
from md5light.job import Mail
from md5light.lists.entry import Entry
from md5light.queue import lines, outbox, totals, turns
from md5light.queue.database import Database, Row, Transaction
from md5light.queue.ids import ID, find
from md5light.queue.limits import NO_LIMITS, Limits
from md5light.queue.sweeps import PORTION, Sweeps

#: seconds for which a process believes the result of a running batch that it has read, at least
FRESH_SECONDS = 1.0

#: the part of a process's time that may go into reading one batch's results
READING_SHARE = 1 / 10

#: seconds that a cancel takes at most before workers go on with it: then most have ended
CANCEL_SECONDS = 10.0

#: name of the lock under which unfinished batches are counted
LOCK = "batches"

VISIBLE = "batches.status in ('running', 'done', 'canceled')"

BATCHES = f"""
    select batches.*, case when email is null then 'none'
        when batches.finished_at is null then 'waiting'
        else coalesce((select outbox.status from outbox where kind = 'batch'
            and subject = batches.id || '.' || batches.ends), 'none') end as mail
    from batches where {VISIBLE}
"""

GET = f"{BATCHES} and id = :id"

NEWEST = f"{BATCHES} order by created_at desc, id limit :limit"

# The first one that was published with this key.
WITH_KEY = f"""
    {BATCHES} and client = :client and idempotency_key = :idempotency_key
    order by created_at, id limit 1
"""

COUNT_UNFINISHED = """
    select count(*) as batches from batches
    where finished_at is null and status in ('taking', 'running')
"""

BEGIN = """
    insert into batches (id, name, status, format, header, digests, email, client, unlimited,
        idempotency_key, fingerprint, created_at, opened_at, touched_at)
    values (:id, :name, 'taking', :format, :header, :digests, :email, :client, :unlimited,
        :idempotency_key, :fingerprint, :now, :now, :now)
"""

TAKING = "select * from batches where id = :id and status = 'taking'"

ADDED = """
    update batches set lines = lines + :lines, urls = urls + :urls, touched_at = :now
    where id = :id and status = 'taking'
"""

PUBLISH = """
    update batches set status = 'running', sweep = 'admit', turn = :turn, touched_at = :now
    where id = :id and status = 'taking'
"""

DISCARD = "update batches set status = 'removed' where id = :id and status = 'taking'"

CANCEL = """
    update batches set sweep = 'cancel', canceled = 1, touched_at = :now
    where id = :id and status = 'running'
"""

RETRY = """
    update batches set status = 'running', sweep = 'retry', canceled = 0, turn = :turn,
        opened_at = :now, touched_at = :now, finished_at = null
    where id = :id and status in ('done', 'canceled') and exists (
        select 1 from jobs where batch_id = batches.id and status in ('failed', 'canceled'))
"""

UNFINISHED = "batch_id = batches.id and status in ('queued', 'running', 'parked')"

ENDED = f"""
    select * from batches where finished_at is null and status = 'running' and sweep is null
        and not exists (select 1 from jobs where {UNFINISHED})
"""

# `touched_at` proves that no job was retried since the result was read.
END = f"""
    update batches set status = case when canceled = 1 then 'canceled' else 'done' end,
        finished_at = :now, ends = ends + 1, result = :result
    where id = :id and status = 'running' and sweep is null and touched_at = :touched_at
        and not exists (select 1 from jobs where {UNFINISHED})
    returning status, email, ends
"""

REMOVE_UNSENT = """
    delete from outbox where kind = 'batch' and subject = :subject and status <> 'sent'
"""

PURGE = """
    update batches set status = 'removed', finished_at = null
    where finished_at < :before and not exists (
        select 1 from outbox where kind = 'batch'
            and subject = batches.id || '.' || batches.ends and outbox.due_at is not null)
    returning urls
"""


class Batches:
    """The batches of one database.

    For clients: begin, add, publish, get, result, entries, cancel, retry; for administrators:
    newest, find, purge; for workers: end_due, sweep. Each method is one or a few short
    transactions, and raises DatabaseUnavailable when the database could not do them.
    """

    def __init__(
        self,
        database: Database,
        *,
        max_attempts: int,
        per_host: int = 0,
        max_unfinished_batches: int = 10**12,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self._database = database
        self._max_attempts = max_attempts
        self._max_unfinished = max_unfinished_batches
        self._limits = limits
        self._sweeps = Sweeps(database, per_host, max_attempts)
        #: for each list that this process takes the places of its jobs, by digest of the URL
        self._places: dict[str, dict[bytes, int]] = {}
        #: results of running batches, each with the time until which it is believed
        self._results: dict[str, tuple[float, Result]] = {}

    @classmethod
    def configured(cls, database: Database, config: Config) -> Batches:
        """Make the batches that `config` describes."""
        return cls(
            database,
            max_attempts=config.queue.max_attempts,
            per_host=config.worker.per_host,
            max_unfinished_batches=config.server.max_unfinished_batches,
            limits=Limits.configured(config),
        )

    # --- taking a list ----------------------------------------------------------------------------

    def begin(self, new: NewBatch) -> str:
        """Make a batch that nobody sees before `publish`, and return its id.

        Raises QueueFull or TooMany, and then nothing is stored.
        """
        row: Row = {
            **new._asdict(),
            "id": str(uuid.uuid4()),
            "digests": Wanted.of(new.digests, {}).digests,
        }

        def work(transaction: Transaction) -> None:
            transaction.lock({LOCK, *self._limits.locks(new.client, new.email)})
            if refusal := self._refusal(transaction, new):
                raise refusal
            unlimited = int(self._limits.is_untouched(transaction, new.client))
            transaction.run(BEGIN, **row, unlimited=unlimited)

        self._database.write(work)
        batch_id = str(row["id"])
        self._places[batch_id] = {}
        return batch_id

    def add(self, batch_id: str, added: Sequence[NewLine]) -> None:
        """Store up to PORTION lines of a batch that was begun.

        Raises TooMany, or DatabaseUnavailable when the list was silent for so long that it was
        taken for one whose server died.
        """

        places = self._places.get(batch_id, {})

        def work(transaction: Transaction) -> dict[bytes, int]:
            batch = _taking(transaction, batch_id)
            transaction.lock(self._limits.locks(batch["client"], None))
            new = lines.store(transaction, batch, added, places, self._max_attempts)
            transaction.run(ADDED, id=batch_id, lines=len(added), urls=len(new))
            over = self._limits.above(
                transaction, batch["client"], unlimited=bool(batch["unlimited"])
            )
            if over:
                raise over
            return new

        places.update(self._database.write(work))

    def publish(self, batch_id: str) -> Batch:
        """Make the batch visible and its jobs due.

        Where another list with the same Idempotency-Key came first, this one is discarded and the
        first one is returned; raises Refused when that was another list.
        """

        def work(transaction: Transaction) -> Batch:
            batch = _taking(transaction, batch_id)
            transaction.lock(_key_locks(batch))
            if first := _with_key(transaction, batch):
                transaction.run(DISCARD, id=batch_id)
                return first
            transaction.run(PUBLISH, id=batch_id, turn=turns.first(transaction))
            self._sweeps.portion(transaction, batch_id)
            totals.add(transaction, totals.submitted([batch["client"]]))
            return _get(transaction, batch_id)

        published = self._database.write(work)
        self._places.pop(batch_id, None)
        self._sweeps.go_on([batch_id])
        return published

    def discard(self, batch_id: str) -> None:
        """Remove a batch that will not be published."""
        self._places.pop(batch_id, None)
        self._database.write(lambda transaction: transaction.run(DISCARD, id=batch_id))
        self._sweeps.go_on([batch_id])

    def repeat_of(self, client: str, key: str, fingerprint: str) -> Batch | None:
        """Return the first batch with this Idempotency-Key; Refused when it was another list."""
        asked: Row = {"client": client, "idempotency_key": key, "fingerprint": fingerprint}
        return self._database.read(lambda transaction: _with_key(transaction, asked))

    # --- for clients ------------------------------------------------------------------------------

    def get(self, batch_id: str) -> Batch | None:
        """Return the batch as it stands, None when there is none of this id."""
        if not ID.fullmatch(batch_id):  # not every engine takes every text
            return None
        row = self._database.read(lambda transaction: transaction.one(GET, id=batch_id))
        return _batch(row) if row else None

    def result(self, batch: Batch) -> Result:
        """Return what has become of the lines: exact once the batch has ended, else seconds old.

        The counts are those of one moment, so they always add up.
        """
        if batch.ended:
            return self._database.read(partial(_kept_result, batch_id=batch.id))
        began_at = time.monotonic()
        until, result = self._results.get(batch.id, (0.0, Result()))
        if began_at >= until:
            result = self._read_result(batch.id)
            took = time.monotonic() - began_at
            self._results = {
                batch_id: kept for batch_id, kept in self._results.items() if kept[0] > began_at
            }
            until = began_at + took + max(FRESH_SECONDS, took / READING_SHARE)
            self._results[batch.id] = until, result
        return result

    def entries(
        self,
        batch_id: str,
        *,
        after: int = 0,
        limit: int | None = None,
        statuses: Collection[str] = (),
    ) -> Entries:
        """Return the lines behind position `after`, in input order, those of `statuses` if any.

        They are read portion by portion at each iteration.
        """
        return Entries(self._database, batch_id, after, limit, statuses)

    def cancel(self, batch_id: str) -> bool:
        """Cancel what is unfinished; False when there is no such batch, or it has ended.

        What was hashed stays. Workers learn of it at their next renewal.
        """

        def work(transaction: Transaction) -> bool:
            canceled = transaction.run(CANCEL, id=batch_id) == 1
            if canceled:
                self._sweeps.portion(transaction, batch_id)
            return canceled

        canceled = bool(ID.fullmatch(batch_id)) and self._database.write(work)
        if canceled:
            self._results.pop(batch_id, None)
            self._sweeps.go_on([batch_id], CANCEL_SECONDS)
            self.end_due()
        return canceled

    def retry(self, batch_id: str) -> bool:
        """Make the failed and canceled lines new, and owe one more mail for the next end.

        False when there is no such batch, it still runs, or it has no such line. Raises TooMany
        when the recipient gets too many mails.
        """

        def work(transaction: Transaction) -> bool:
            batch = transaction.one(GET, id=batch_id)
            if batch is None:
                return False
            transaction.lock(self._limits.locks(None, batch["email"]))
            refusal = self._limits.refusal(transaction, None, batch["email"])
            if not transaction.run(RETRY, id=batch_id, turn=turns.first(transaction)):
                return False
            if refusal:
                raise refusal
            transaction.run(REMOVE_UNSENT, subject=mail_id(batch_id, batch["ends"]))
            self._sweeps.portion(transaction, batch_id)
            return True

        retried = bool(ID.fullmatch(batch_id)) and self._database.write(work)
        if retried:
            self._results.pop(batch_id, None)
            self._sweeps.go_on([batch_id])
        return retried

    # --- for administrators -----------------------------------------------------------------------

    def newest(self, limit: int) -> list[Batch]:
        """Return the batches submitted last, the newest first."""
        rows = self._database.read(lambda transaction: transaction.all(NEWEST, limit=limit))
        return [_batch(row) for row in rows]

    def find(self, beginning: str) -> list[str]:
        """Return the ids that begin so, two at most; none for fewer than eight characters."""
        return self._database.read(
            lambda transaction: find(transaction, "batches", VISIBLE, beginning)
        )

    def purge(self, older_than_seconds: float) -> int:
        """Remove the batches that ended so long ago; return how many jobs they had.

        Nobody sees them any more, and `sweep` removes their rows. One whose mail is owed is kept.
        """

        def work(transaction: Transaction) -> int:
            before = transaction.now() - older_than_seconds
            return sum(row["urls"] for row in transaction.all(PURGE, before=before))

        return self._database.write(work)

    def purge_expired(self, retention_seconds: float) -> int:
        """Purge batches whose retention is over, but none while the clock is implausible."""
        if self._database.read(totals.is_clock_implausible):
            return 0
        return self.purge(retention_seconds)

    # --- for workers ------------------------------------------------------------------------------

    def end_due(self) -> list[Batch]:
        """End each batch without an unfinished job, and add the mail that it owes.

        Of all who ask at the same time, one ends it.
        """
        ended = (self._end(row) for row in self._database.read(_to_end))
        return [batch for batch in ended if batch]

    def told_by(self, mail: Mail) -> Batch | None:
        """Return the batch whose end a mail tells of; None where it was opened again since."""
        batch = self.get(mail.subject.rpartition(".")[0])
        return batch if batch and batch.ended and batch.mail_id == mail.subject else None

    def sweep(self) -> bool:
        """Go on with all sweeps for a moment; False when there was nothing to do.

        Lists whose server died before they were published are removed.
        """
        noted = self._sweeps.noted()
        self._sweeps.go_on(noted)
        return bool(noted)

    # --- the parts --------------------------------------------------------------------------------

    def _refusal(self, transaction: Transaction, new: NewBatch) -> Md5lightError | None:
        """Return the reason why a batch may not begin now, if any."""
        row = transaction.one(COUNT_UNFINISHED)
        if row and row["batches"] >= self._max_unfinished:
            return QueueFull("Too many batches are unfinished.")
        return self._limits.refusal(transaction, new.client, new.email)

    def _read_result(self, batch_id: str) -> Result:
        return self._database.read(partial(lines.read_result, batch_id=batch_id))

    def _end(self, ended: Row) -> Batch | None:
        """End a batch; None when another worker did, or when it was opened in the meantime.

        Its result is read before, outside of the transaction: that may take a while.
        """
        result = self._read_result(ended["id"])
        before = lines.from_json(ended["result"]).counts if ended["result"] else Counts()

        def work(transaction: Transaction) -> Batch | None:
            parameters: Row = {"result": lines.to_json(result), "touched_at": ended["touched_at"]}
            row = transaction.one(END, id=ended["id"], **parameters)
            if row is None:
                return None
            if row["email"]:
                mail = {mail_id(ended["id"], row["ends"]): row["email"]}
                outbox.add(transaction, "batch", mail)
            totals.add(transaction, _events(row["status"], result.counts, before))
            return _get(transaction, ended["id"])

        return self._database.write(work)


class Entries:
    """Lines of a batch, to be iterated over as often as needed; each portion is a transaction."""

    def __init__(
        self,
        database: Database,
        batch_id: str,
        after: int,
        limit: int | None,
        statuses: Collection[str],
    ) -> None:
        self._database = database
        self._batch_id = batch_id
        self._after = after
        self._limit = limit
        self._statuses = statuses

    def __iter__(self) -> Iterator[Entry]:
        return islice(chain.from_iterable(self._portions()), self._limit)

    def _portions(self) -> Iterator[list[Entry]]:
        after: int | None = self._after
        limit = PORTION if self._limit is None else min(PORTION, self._limit)
        while after is not None:
            read = partial(
                lines.read_portion,
                batch_id=self._batch_id,
                after=after,
                limit=limit,
                statuses=self._statuses,
            )
            entries, after = self._database.read(read)
            yield entries


def _batch(row: Row) -> Batch:
    values = {field: row[field] for field in Batch._fields}
    return Batch(**{**values, "digests": tuple(row["digests"].split())})


def _get(transaction: Transaction, batch_id: str) -> Batch:
    (row,) = transaction.all(GET, id=batch_id)
    return _batch(row)


def _taking(transaction: Transaction, batch_id: str) -> Row:
    """Return the row of a batch whose list is being taken."""
    row = transaction.one(TAKING, id=batch_id)
    if row is None:
        raise DatabaseUnavailable("The list took too long to be stored, and was removed.")
    return row


def _with_key(transaction: Transaction, asked: Row) -> Batch | None:
    """Return the visible batch with the same key; Refused when it was made of another list."""
    if asked["idempotency_key"] is None:
        return None
    key = {name: asked[name] for name in ("client", "idempotency_key")}
    row = transaction.one(WITH_KEY, **key)
    if row and row["fingerprint"] != asked["fingerprint"]:
        message = "This Idempotency-Key came with another list or other options before."
        raise Refused("idempotency_key_reused", message)
    return _batch(row) if row else None


def _key_locks(batch: Row) -> set[str]:
    key = batch["idempotency_key"]
    return set() if key is None else {f"batch {batch['client']} {key}"}


def _kept_result(transaction: Transaction, batch_id: str) -> Result:
    (row,) = transaction.all("select result from batches where id = :id", id=batch_id)
    return lines.from_json(row["result"])


def _to_end(transaction: Transaction) -> list[Row]:
    return transaction.all(ENDED)


def _events(status: str, counts: Counts, before: Counts) -> list[totals.Event]:
    """Return the events of an end: its lines by result, but those that counted `before`."""
    events = [totals.Event(f"batch {status}")]
    for result in LINE_RESULTS:
        new = getattr(counts, result) - getattr(before, result)
        if new > 0:
            events.append(totals.Event(f"line {result}", times=new))
    return events
