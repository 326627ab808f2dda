"""Recipients: finding and removing mail addresses.

A job or a batch has the address that was submitted with it, the outbox that of each mail. A row
whose address was removed stays, but causes no further mail.
"""

from __future__ import annotations

from md5light.queue import totals
from md5light.queue.database import Database, Row, Transaction

#: the tables with submitted addresses, by the kind of their mails
SUBJECTS = {"job": "jobs", "batch": "batches"}

#: the id in the subject of a mail; a batch's subject continues with the number of its end
SUBJECT_ID = {"job": "subject", "batch": "substr(subject, 1, 36)"}

FIND = """
    select :kind as kind, id, status, created_at, finished_at from {table}
    where lower(email) = lower(:address) and email is not null order by created_at, id
"""

FORGET = (
    "update {table} set email = null where lower(email) = lower(:address) and email is not null"
)

REMOVE_OWED = "delete from outbox where lower(recipient) = lower(:address) and due_at is not null"

FORGET_RECIPIENT = "update outbox set recipient = '' where lower(recipient) = lower(:address)"

EXPIRE = """
    update {table} set email = null where id in (
        select id from {table} where email is not null and finished_at < :before and not exists (
            select 1 from outbox where kind = :kind and {subject} = {table}.id
                and (due_at is not null or finished_at >= :before))
        order by finished_at limit :rows)
"""

EXPIRE_RECIPIENTS = """
    update outbox set recipient = '' where (kind, subject) in (
        select kind, subject from outbox where recipient <> '' and finished_at < :before
        order by finished_at limit :rows)
"""


class Recipients:
    """The addresses in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, address: str) -> list[Row]:
        """Return the jobs and batches of an address: kind, id, status, created_at, finished_at."""

        def work(transaction: Transaction) -> list[Row]:
            found = []
            for kind, table in SUBJECTS.items():
                found += transaction.all(FIND.format(table=table), kind=kind, address=address)
            return found

        return self._database.read(work)

    def forget(self, address: str) -> int:
        """Remove an address and the mails owed to it; return in how many rows it was."""

        def work(transaction: Transaction) -> int:
            statements = [FORGET.format(table=table) for table in SUBJECTS.values()]
            statements += [REMOVE_OWED, FORGET_RECIPIENT]
            return sum(transaction.run(sql, address=address) for sql in statements)

        return self._database.write(work)

    def expire(self, retention_seconds: float, *, rows: int = 500) -> int:
        """Remove up to `rows` addresses of each table whose mail ended so long ago; count them.

        None are removed while the clock is implausible.
        """

        def work(transaction: Transaction) -> int:
            limits = {"before": transaction.now() - retention_seconds, "rows": rows}
            removed = 0
            for kind, table in SUBJECTS.items():
                sql = EXPIRE.format(table=table, subject=SUBJECT_ID[kind])
                removed += transaction.run(sql, kind=kind, **limits)
            return removed + transaction.run(EXPIRE_RECIPIENTS, **limits)

        if self._database.read(totals.is_clock_implausible):
            return 0
        return self._database.write(work)
