"""Batches: lists of many lines, from the first stored line to the end and its mail.

The way of a batch: `begin` creates it, `add` stores its lines in portions, `publish` makes it
visible and its jobs due. From then on its jobs are like all others. `end_due` asks whether any of
them is unfinished, and ends the batch if none is. A change of many rows (making jobs due, cancel,
retry, removal) is a sweep: the batch records it, and it is done in portions. The states of a batch
are drawn in the schema.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from functools import partial

from md5light.batch import Batch, NewBatch, NewLine, Result, mail_id
from md5light.config import Config
from md5light.finding import Wanted
from md5light.job import Mail
from md5light.queue import ends, intake, totals, turns, visible
from md5light.queue.database import Database, Row, Transaction
from md5light.queue.ids import ID, find
from md5light.queue.limits import NO_LIMITS, Limits
from md5light.queue.results import Entries, Results
from md5light.queue.sweeps import Sweeps
from md5light.queue.visible import BATCHES, GET, VISIBLE, batch_of

#: the most seconds that a cancel takes before workers continue it: most are complete by then
CANCEL_SECONDS = 10.0

NEWEST = f"{BATCHES} order by created_at desc, id limit :limit"

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
        self._results = Results(database)
        #: for each list that this process takes the places of its jobs, by digest of the URL
        self._places: dict[str, dict[bytes, int]] = {}

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
        """Create a batch, which is invisible until `publish`, and return its id.

        Raises QueueFull or TooMany, and then nothing is stored.
        """
        row: Row = {
            **new._asdict(),
            "id": str(uuid.uuid4()),
            "digests": Wanted.of(new.digests, {}).digests,
        }
        begin = partial(
            intake.begin, row=row, limits=self._limits, max_unfinished=self._max_unfinished
        )
        self._database.write(begin)
        batch_id = str(row["id"])
        self._places[batch_id] = {}
        return batch_id

    def add(self, batch_id: str, added: Sequence[NewLine]) -> None:
        """Store up to PORTION lines of a batch that was begun.

        Raises TooMany, or DatabaseUnavailable if nothing was added for so long that the batch was
        discarded as one whose server had died.
        """
        places = self._places.get(batch_id, {})
        store = partial(
            intake.add,
            batch_id=batch_id,
            added=added,
            places=places,
            limits=self._limits,
            max_attempts=self._max_attempts,
        )
        places.update(self._database.write(store))

    def publish(self, batch_id: str) -> Batch:
        """Make the batch visible and its jobs due.

        If a list with the same Idempotency-Key was published first, this one is discarded and the
        first one is returned; raises Refused if the two lists differ.
        """
        published = self._database.write(
            partial(intake.publish, batch_id=batch_id, sweeps=self._sweeps)
        )
        self._places.pop(batch_id, None)
        self._sweeps.go_on([batch_id])
        return published

    def discard(self, batch_id: str) -> None:
        """Remove a batch that will not be published."""
        self._places.pop(batch_id, None)
        self._database.write(partial(intake.discard, batch_id=batch_id))
        self._sweeps.go_on([batch_id])

    def repeat_of(self, client: str, key: str, fingerprint: str) -> Batch | None:
        """Return the first batch with this Idempotency-Key; raises Refused if its list differs."""
        asked: Row = {"client": client, "idempotency_key": key, "fingerprint": fingerprint}
        return self._database.read(lambda transaction: intake.with_key(transaction, asked))

    # --- for clients ------------------------------------------------------------------------------

    def get(self, batch_id: str) -> Batch | None:
        """Return the batch as it stands, None when there is none of this id."""
        if not ID.fullmatch(batch_id):  # not every engine takes every text
            return None
        return self._database.read(partial(visible.get, batch_id=batch_id))

    def result(self, batch: Batch) -> Result:
        """Return the result of the lines: exact once the batch has ended, before it seconds old.

        The counts are those of one moment, so they always add up.
        """
        return self._results.of(batch)

    def entries(
        self,
        batch_id: str,
        *,
        after: int = 0,
        limit: int | None = None,
        statuses: Collection[str] = (),
    ) -> Entries:
        """Return the lines after position `after`, in input order, only of `statuses` if any.

        Each iteration reads them in portions.
        """
        return Entries(self._database, batch_id, after, limit, statuses)

    def cancel(self, batch_id: str) -> bool:
        """Cancel the unfinished jobs; False when there is no such batch, or it has ended.

        Results stay. Workers learn of it at their next renewal.
        """

        def work(transaction: Transaction) -> bool:
            canceled = transaction.run(CANCEL, id=batch_id) == 1
            if canceled:
                self._sweeps.portion(transaction, batch_id)
            return canceled

        canceled = bool(ID.fullmatch(batch_id)) and self._database.write(work)
        if canceled:
            self._results.forget(batch_id)
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
            self._results.forget(batch_id)
            self._sweeps.go_on([batch_id])
        return retried

    # --- for administrators -----------------------------------------------------------------------

    def newest(self, limit: int) -> list[Batch]:
        """Return the batches submitted last, the newest first."""
        rows = self._database.read(lambda transaction: transaction.all(NEWEST, limit=limit))
        return [batch_of(row) for row in rows]

    def find(self, beginning: str) -> list[str]:
        """Return the ids that begin so, two at most; none for fewer than eight characters."""
        return self._database.read(
            lambda transaction: find(transaction, "batches", VISIBLE, beginning)
        )

    def purge(self, older_than_seconds: float) -> int:
        """Remove the batches that ended so long ago; return how many jobs they had.

        They become invisible, and `sweep` removes their rows. A batch with an owed mail is kept.
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

        If several workers ask at the same time, one of them ends it.
        """
        ended = (self._end(row) for row in self._database.read(ends.due))
        return [batch for batch in ended if batch]

    def told_by(self, mail: Mail) -> Batch | None:
        """Return the batch whose end a mail is about; None if it has been opened again."""
        batch = self.get(mail.subject.rpartition(".")[0])
        return batch if batch and batch.ended and batch.mail_id == mail.subject else None

    def sweep(self) -> bool:
        """Continue all sweeps for a moment; False when there was nothing to do.

        It also removes lists whose server died before it published them.
        """
        noted = self._sweeps.noted()
        self._sweeps.go_on(noted)
        return bool(noted)

    def _end(self, row: Row) -> Batch | None:
        result = self._results.read(row["id"])
        return self._database.write(partial(ends.end, ended=row, result=result))
