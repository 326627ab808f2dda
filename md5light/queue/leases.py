"""Leases: which worker holds a row, and the fence that its later writes must pass.

A row of a leased table is due when `due_at <= now`. A claim takes due rows: it gives them a token
and moves `due_at` to the end of the lease. Every later write of the worker is fenced: it changes
the row only while that has the token. A worker that died renews nothing, so its rows become due
again. The columns common to all leased tables are described in the schema.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

from md5light.errors import Failure
from md5light.job import FAR
from md5light.queue.backoff import LONGEST_SECONDS
from md5light.queue.database import Row, Transaction

#: the states of unfinished rows without a lease
WAITING = ("queued", "waiting")

#: the share of a lease that must be over before it is extended: until then a renewal touches no
#: index, so that PostgreSQL writes the row in place (a heap-only tuple)
RENEWED_SHARE = 1 / 6

# 1e12 is job.FAR: from there on due_at is a turn.

#: the two ranges of a claim: rows that are due by time, then rows in the order of their turns
BY_TIME = "due_at <= :now"
BY_TURN = "due_at >= 1e12"

#: one claim in so many begins with turns: a stream of rows due by time must not starve them
TURNS_FIRST = 8

IS_DUE = "select 1 from {table} where {range} order by due_at limit 1"

DUE = """
    select {columns} from {table} where {range} order by due_at limit :limit
    for update skip locked
"""

NEXT = "select min(due_at) as due_at from {table} where due_at > :now"

CLAIM = """
    update {table} set token = :token, worker = :worker, due_at = :lease_end,
        attempts = attempts + 1{on_claim}
    where {rows} returning {columns}
"""

FENCE = "{key} and token = :token"

RENEW = """
    update {table} set due_at = case when due_at < :extend_before then :lease_end else due_at end
        {on_renew}
    where {fence}
"""

SETTLE = """
    update {table} set status = :status, due_at = :due_at, finished_at = :finished_at,
        attempts = attempts - :untried, error_code = :error_code, error_message = :error_message,
        token = null, worker = null{on_settle}
    where {fence}
"""

# A lease ends within its length from now, so only that part of the index is read.

FREE = """
    update {table} set due_at = :now, worker = null
    where due_at > :now and due_at <= :now + :lease and worker = :worker
"""

LONGEST = """
    :now + case when token is not null then :lease when {is_new} then 0 else :backoff end
"""

CLAMP_DUE_AT = """
    update {table} set due_at = {longest}
    where due_at > :now and due_at < 1e12 and due_at > {longest}
"""


class Leases:
    """The leases of one table; each method runs within the caller's transaction.

    `on_claim`, `on_renew` and `on_settle` are further assignments of these statements, each with a
    leading comma; their parameters are given with the rows. `is_new` is true of a row that has
    never waited for a time; `due_columns` are the columns that `due` returns.
    """

    def __init__(
        self,
        table: str,
        key: Sequence[str],
        *,
        seconds: float,
        on_claim: str = "",
        on_renew: str = "",
        on_settle: str = "",
        is_new: str = "attempts = 0",
        due_columns: str = "*",
        claimed_columns: str = "*",
    ) -> None:
        self._table = table
        self._key = key
        self._seconds = seconds
        self._on_claim = on_claim
        self._is_new = is_new
        self._claimed_columns = claimed_columns
        #: statements that claim, by the number of rows
        self._claim: dict[int, str] = {}
        self._claims = itertools.count(1)
        fence = FENCE.format(key=self._equal())
        ranges = (BY_TIME, BY_TURN)
        self._is_due = [IS_DUE.format(table=table, range=each) for each in ranges]
        self._due = [DUE.format(columns=due_columns, table=table, range=each) for each in ranges]
        self._renew = RENEW.format(table=table, on_renew=on_renew, fence=fence)
        self._settle = SETTLE.format(table=table, on_settle=on_settle, fence=fence)

    def any_due(self, transaction: Transaction) -> bool:
        """Tell whether a row is due; a cheap read."""
        return any(transaction.one(sql) for sql in self._is_due)

    def due(self, transaction: Transaction, limit: int) -> list[Row]:
        """Return the next rows to claim, without those that other claims are about to take."""
        turns_first = next(self._claims) % TURNS_FIRST == 0
        rows: list[Row] = []
        for sql in reversed(self._due) if turns_first else self._due:
            if len(rows) < limit:
                rows += transaction.all(sql, limit=limit - len(rows))
        return rows

    def seconds_to_next(self, transaction: Transaction) -> float:
        """Return how soon another row falls due or a lease ends; a cheap read."""
        row = transaction.one(NEXT.format(table=self._table))
        if row is None or row["due_at"] is None:
            return FAR
        return max(0.0, float(row["due_at"]) - transaction.now())

    def claim(self, transaction: Transaction, due: Sequence[Row], worker: str) -> list[Row]:
        """Give `worker` the lease of the rows, count an attempt of each, and return them."""
        if not due:
            return []
        keys = {f"{name}{n}": row[name] for n, row in enumerate(due) for name in self._key}
        return transaction.all(
            self._claim.get(len(due)) or self._compose_claim(len(due)),
            token=f"{random.getrandbits(128):032x}",  # unique; it is no secret
            worker=worker,
            lease_end=transaction.now() + self._seconds,
            **keys,
        )

    def _compose_claim(self, rows: int) -> str:
        chosen = " or ".join(f"({self._equal(n)})" for n in range(rows))
        return self._claim.setdefault(
            rows,
            CLAIM.format(
                table=self._table,
                on_claim=self._on_claim,
                rows=chosen,
                columns=self._claimed_columns,
            ),
        )

    def renew(self, transaction: Transaction, rows: Iterable[Row]) -> list[bool]:
        """Extend leases that have run for a while; return for each row whether it is still held.

        A row holds its key, its token and the parameters of `on_renew`.
        """
        lease_end = transaction.now() + self._seconds
        times = {
            "lease_end": lease_end,
            "extend_before": lease_end - RENEWED_SHARE * self._seconds,
        }
        changed = transaction.run_many(self._renew, [{**row, **times} for row in rows])
        return [count == 1 for count in changed]

    def settle(self, transaction: Transaction, rows: list[Row]) -> list[bool]:
        """End leases; return for each row whether it was still held, and so changed.

        A row holds its key, its token, `status`, `due_at` or `finished_at`, `untried` (1 where the
        attempt does not count), `error_code`, `error_message` and the parameters of `on_settle`.
        """
        return [count == 1 for count in transaction.run_many(self._settle, rows)]

    def free(self, transaction: Transaction, worker: str) -> int:
        """Make the rows of a worker that died due at once; return how many they were."""
        return transaction.run(FREE.format(table=self._table), worker=worker, lease=self._seconds)

    def clamp_due_at(self, transaction: Transaction) -> int:
        """Shorten waits longer than a lease or the longest back-off; return how many there were.

        There are some only after the clock was set back.
        """
        return transaction.run(
            CLAMP_DUE_AT.format(table=self._table, longest=LONGEST.format(is_new=self._is_new)),
            lease=self._seconds,
            backoff=LONGEST_SECONDS,
        )

    def _equal(self, number: int | None = None) -> str:
        """Compare the key with parameters of its names, or of its names and a number."""
        suffix = "" if number is None else number
        return " and ".join(f"{name} = :{name}{suffix}" for name in self._key)


def settled(
    status: str,
    now: float,
    *,
    due_at: float | None = None,
    untried: int = 0,
    failure: Failure | None = None,
) -> Row:
    """Return the parameters common to all settled rows; a waiting row has no `finished_at`."""
    code, message = failure.told if failure else (None, None)
    return {
        "status": status,
        "due_at": due_at,
        "finished_at": None if status in WAITING else now,
        "untried": untried,
        "error_code": code,
        "error_message": message,
    }
