"""Hosts: how many jobs of one host may run now, over all processes and machines.

At most `per_host` run at once, fewer of a host in trouble (`politeness`), none while it rests. If a
claim finds more due jobs of a host than may run, it sets them aside (`due_at` is null), so that
they do not delay other hosts. They become due again in their turns, as running jobs of the host
end. Of a host that rests, one job becomes due at the end of the rest: it knocks for all.

So a host with jobs set aside always has one that runs or is due. Each transaction that sets jobs
aside, or changes one that was due or ran, admits others, under the host's lock.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from md5light.job import Job
from md5light.queue.database import Row, Transaction
from md5light.queue.politeness import Host

#: the standing of a host; for several hosts such statements are joined by `union all`
LOOK = """
    select :{name} as host, exists (select 1 from hosts where host = :{name}) as is_in_trouble,
        (select count(*) from jobs where host = :{name} and status = 'running'
            and finished_at is null) as running,
        exists (select 1 from jobs where host = :{name} and status = 'queued'
            and due_at is null and finished_at is null) as has_aside
"""

#: a host in trouble, and how many of its running jobs began after its last word
TROUBLE = """
    select hosts.*, (
        select count(*) from jobs where jobs.host = hosts.host and status = 'running'
            and finished_at is null and started_at > word_at) as since
    from hosts where host = :host
"""

# 1e12 is job.FAR: a job with a turn may be claimed at any time.

SET_ASIDE = """
    update jobs set turn = coalesce(turn, due_at), due_at = null, status = 'queued', token = null,
        worker = null
    where id in (
        select id from jobs
        where host = :host and status = {status} and finished_at is null
            and (due_at <= :now or due_at >= 1e12)
        order by due_at limit :portion for update skip locked)
"""

SET_WAITING_ASIDE = SET_ASIDE.format(status="'queued'")

#: due jobs whose worker died, except those that must end as lost
SET_LOST_ASIDE = SET_ASIDE.format(status="'running' and attempts < max_attempts")

ADMIT = """
    update jobs set due_at = turn where id in (
        select id from jobs
        where host = :host and status = 'queued' and due_at is null and finished_at is null
        order by turn limit (
            select case when count(*) < :places then :places - count(*) else 0 end from jobs
            where host = :host and status = 'running' and finished_at is null
                and started_at > :since))
"""

IS_KNOCK_SET = """
    select 1 from jobs
    where host = :host and status = 'queued' and due_at = :rest_until and finished_at is null
"""

ASIDE = """
    select id from jobs
    where host = :host and status = 'queued' and due_at is null and finished_at is null
"""

NEXT_IN_TURN = f"{ASIDE} order by turn limit 1"

# Each knock takes another job, since a job may be at fault itself. The first subquery finds a job
# that was never tried, without sorting all.

NEXT_TO_KNOCK = f"""
    select coalesce(
        ({ASIDE} and attempts = 0 and refusals = 0 order by turn limit 1),
        ({ASIDE} order by attempts, coalesce(refused_at, 0), turn limit 1))
"""

SET_KNOCK = "update jobs set due_at = :rest_until where id = ({next})"

GIVEN_UP = "select * from hosts where given_up_at is not null"

FAIL = """
    update jobs set status = 'failed', due_at = null, turn = null, finished_at = :now,
        error_code = :error_code, error_message = :error_message
    where id in (
        select id from jobs
        where host = :host and status = 'queued' and finished_at is null
            and created_at <= :given_up_at
        limit :portion for update skip locked)
    returning *
"""

ALL_FAILED = "update hosts set given_up_at = null where host = :host"

FORGET = """
    delete from hosts where rest_until <= :now - :remembered and given_up_at is null
"""

AFTER_CLOCK_SET_BACK = """
    update hosts set rest_until = :now, word_at = :now, good_at = null where word_at > :now
"""

NEWEST = """
    select host, room, rest_until, rests, error_code, error_message,
        (select count(*) from jobs where jobs.host = hosts.host and status = 'running'
            and finished_at is null) as running,
        (select count(*) from jobs where jobs.host = hosts.host and status = 'queued'
            and finished_at is null) as waiting
    from hosts order by word_at desc, host limit :limit
"""

#: the name of a host's lock, before the host
LOCK = "host "

#: the number of running jobs that means no limit
UNLIMITED = 10**9

#: the most jobs that one statement sets aside, admits or fails
PORTION = 1000

#: seconds after its last rest for which a host is remembered
REMEMBERED_SECONDS = 3600.0


@dataclass
class Standing:
    """The standing of a host, read and kept up to date under its lock."""

    #: the number of its running jobs
    running: int
    #: whether it has jobs set aside
    has_aside: bool
    #: None: it is not in trouble
    trouble: Host | None = None
    #: its running jobs that began after its last word
    since: int = 0
    #: it must not be changed in this transaction, since its lock was shared
    lock_is_shared: bool = False

    def rests(self, now: float) -> bool:
        return self.trouble is not None and self.trouble.rest_until > now


#: hosts by name
Standings = dict[str, Standing]


class HostReport(NamedTuple):
    """A host in trouble, for administrators."""

    host: str
    running: int
    waiting: int
    #: jobs that may run at once now, at most `per_host`
    room: int
    #: the end of its rest, in Unix seconds; None: it does not rest
    rest_until: float | None
    #: its last word
    error_code: str
    error_message: str


class Hosts:
    """The limit of `per_host` running jobs (0: none) and the rests of hosts.

    Methods run in the caller's transaction. Without a limit, transactions share the lock of a host
    that is in no trouble and has no jobs set aside: then none of them changes its state.
    """

    def __init__(self, per_host: int) -> None:
        self.per_host = per_host or UNLIMITED
        #: hosts whose locks this process does not share: in trouble, or with jobs set aside, when
        #: it saw them last
        self._unshared: set[str] = set()

    def lock(
        self, transaction: Transaction, hosts: Iterable[str], shareable: Collection[str] = ()
    ) -> None:
        """Keep others from changing the state of `hosts`, and how many of their jobs run.

        The locks of those that are `shareable` are shared, as far as that is known to be possible.
        """
        transaction.lock((LOCK + host for host in hosts), self._shared(shareable))

    def try_lock(self, transaction: Transaction, hosts: Collection[str]) -> set[str]:
        """Lock those of `hosts` for which it need not wait, sharing locks; return them."""
        locked = transaction.try_lock([LOCK + host for host in hosts], self._shared(hosts))
        return {host for host in hosts if LOCK + host in locked}

    def _shared(self, hosts: Iterable[str]) -> set[str]:
        limited = self.per_host != UNLIMITED
        return set() if limited else {LOCK + host for host in hosts if host not in self._unshared}

    # --- under the locks of the hosts -------------------------------------------------------------

    def look(self, transaction: Transaction, hosts: Iterable[str]) -> Standings:
        """Read the standings of `hosts`."""
        names = {f"host{n}": host for n, host in enumerate(sorted(hosts))}
        if not names:
            return {}
        standings = {}
        for row in transaction.all(_look_at(tuple(names)), **names):
            host, standing = row["host"], Standing(row["running"], bool(row["has_aside"]))
            if row["is_in_trouble"]:
                (trouble,) = transaction.all(TROUBLE, host=host)
                standing.since = trouble.pop("since")
                standing.trouble = Host(**trouble)
            standings[host] = standing
            if standing.trouble or standing.has_aside:
                standing.lock_is_shared = transaction.shares(LOCK + host)
                self._unshared.add(host)
            else:
                self._unshared.discard(host)
        return standings

    def choose(
        self, transaction: Transaction, due: list[Row], known: Standings
    ) -> tuple[list[Row], Standings]:
        """Return the due jobs that may run, and the hosts that have no room for the others.

        `known` has standings that were read before. A job whose worker died still has its place,
        unless its host rests. Jobs of a host in trouble whose lock is shared are in neither.
        """
        now = transaction.now()
        hosts = {job["host"] for job in due}
        standings = known | self.look(transaction, hosts - known.keys())
        places = {host: self._places(standing) for host, standing in standings.items()}
        may_run: list[Row] = []
        full: Standings = {}
        for job in due:
            host = job["host"]
            is_queued = job["status"] == "queued"
            if standings[host].lock_is_shared:
                continue
            if standings[host].rests(now) or (is_queued and places[host] <= 0):
                full[host] = standings[host]
            else:
                may_run.append(job)
                places[host] -= is_queued
        return may_run, full

    def set_aside(self, transaction: Transaction, standings: Standings) -> None:
        """Set due jobs of these hosts aside, up to a thousand of each."""
        for host, standing in standings.items():
            transaction.run(SET_WAITING_ASIDE, host=host, portion=PORTION)
            if standing.trouble and standing.rests(transaction.now()):
                transaction.run(SET_LOST_ASIDE, host=host, portion=PORTION)
                self._let_knock(transaction, standing.trouble)

    def admit(self, transaction: Transaction, hosts: Iterable[str]) -> None:
        """Make as many jobs of `hosts` due as may run now, or one at the end of a rest."""
        self.admit_by(transaction, self.look(transaction, hosts))

    def admit_by(self, transaction: Transaction, standings: Standings) -> None:
        """Do as `admit` does, with standings that were read before their jobs changed."""
        now = transaction.now()
        rows = []
        for host, standing in standings.items():
            trouble = standing.trouble
            if trouble and standing.rests(now):
                self._let_knock(transaction, trouble)
            elif trouble or standing.has_aside:  # only trouble sets ended jobs aside
                since = trouble.word_at if trouble else 0.0
                places = min(PORTION, self._limit(trouble))
                rows.append({"host": host, "places": places, "since": since})
        for count in transaction.run_many(ADMIT, rows):
            if count > 1:  # the worker whose job has ended takes one
                transaction.ring()

    # --- in transactions of their own -------------------------------------------------------------

    def given_up(self, transaction: Transaction) -> list[Host]:
        """Return the hosts that were given up and may have jobs left to fail; a cheap read."""
        return [Host(**row) for row in transaction.all(GIVEN_UP)]

    def fail_waiting(self, transaction: Transaction, host: str) -> list[Job]:
        """Fail jobs that waited when the host was given up, up to a thousand; return them."""
        self.lock(transaction, [host])
        standings = self.look(transaction, [host])
        trouble = standings[host].trouble
        if trouble is None or trouble.given_up_at is None:  # it is back, or another worker did it
            return []
        failed = transaction.all(FAIL, **vars(trouble), portion=PORTION)
        if len(failed) < PORTION:
            transaction.run(ALL_FAILED, host=host)
        self.admit_by(transaction, standings)
        return [Job(**row) for row in failed]

    def tidy(self, transaction: Transaction) -> None:
        """Delete hosts whose trouble is long over, and correct times after a clock was set back."""
        self._unshared.clear()  # it must not grow; what is still true is soon seen again
        transaction.run(FORGET, remembered=REMEMBERED_SECONDS)
        transaction.run(AFTER_CLOCK_SET_BACK)

    def newest(self, transaction: Transaction, limit: int) -> list[HostReport]:
        """Return the hosts that were in trouble last."""
        now = transaction.now()
        reports = []
        for row in transaction.all(NEWEST, limit=limit):
            resting = row.pop("rests") and row["rest_until"] > now
            row["room"] = 0 if resting else min(row["room"], self.per_host)
            row["rest_until"] = row["rest_until"] if resting else None
            reports.append(HostReport(**row))
        return reports

    def _places(self, standing: Standing) -> int:
        """Return how many more jobs of a host may run.

        Jobs that began before its last word do not use the room that it has made since: a long
        download must not keep others waiting.
        """
        room = self._limit(standing.trouble) - standing.since
        return min(self.per_host - standing.running, room)

    def _limit(self, trouble: Host | None) -> int:
        return min(self.per_host, trouble.room) if trouble else self.per_host

    def _let_knock(self, transaction: Transaction, trouble: Host) -> None:
        """Make one job due at the end of the rest, unless there is one."""
        times = {"host": trouble.host, "rest_until": trouble.rest_until}
        if transaction.one(IS_KNOCK_SET, **times) is None:
            following = NEXT_IN_TURN
            if trouble.refuses:  # the job that was refused must not be the only one to choose from
                transaction.run(SET_WAITING_ASIDE, host=trouble.host, portion=PORTION)
                following = NEXT_TO_KNOCK
            if transaction.run(SET_KNOCK.format(next=following), **times):
                transaction.ring()  # else idle workers might look only after that


@functools.cache
def _look_at(names: tuple[str, ...]) -> str:
    return " union all ".join(LOOK.format(name=name) for name in names)
