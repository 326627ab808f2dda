"""Ids of jobs and batches: random UUIDs, which their owner may shorten."""

from __future__ import annotations

import re

from md5light.queue.database import Transaction

#: the form of an id, as uuid4() is written
ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: a beginning of an id that is long enough to name a row
BEGINNING = re.compile("[0-9a-f-]{8,36}")

FIND = "select id from {table} where {visible} and id like :pattern order by id limit 2"


def find(transaction: Transaction, table: str, visible: str, beginning: str) -> list[str]:
    """Return the ids of visible rows that begin so, two at most; none for under 8 characters."""
    if not BEGINNING.fullmatch(beginning):
        return []
    sql = FIND.format(table=table, visible=visible)
    return [row["id"] for row in transaction.all(sql, pattern=f"{beginning}%")]
