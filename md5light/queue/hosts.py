"""Hosts: how many jobs of one host may run now, over all processes and machines.

At most `per_host` run at once, fewer of a host in trouble (`politeness`), none while it rests. A
claim that meets more due jobs of a host than may run sets them aside (`due_at` is null), so that
they delay no other host's. They come back in their turns, as running jobs of the host end; for a
host that rests one comes back at the end of the rest: it knocks for all.

So of a host with jobs set aside one runs or is due. Whoever sets jobs aside, or changes one that
was due or ran, admits others in the same transaction, under the host's lock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from md5light.errors import Failure
from md5light.job import Hashed, Job
from md5light.queue.database import Row, Transaction
from md5light.queue.politeness import Host, Word

#: columns of the table of hosts
COLUMNS = [field.name for field in dataclasses.fields(Host)]

FIND = "select * from hosts"

STORE = """
    insert into hosts ({columns}) values ({values}) on conflict (host) do update set {changes}
""".format(
    columns=", ".join(COLUMNS),
    values=", ".join(f":{column}" for column in COLUMNS),
    changes=", ".join(f"{column} = excluded.{column}" for column in COLUMNS),
)

COUNT_RUNNING = """
    select count(*) as running from jobs
    where host = :host and status = 'running' and finished_at is null
"""

#: its row, if it has one, its running jobs, and those that began after its last word
LOOK = """
    select hosts.*, running.jobs as running, running.since
    from (
        select count(*) as jobs, count(case when started_at > coalesce(
                (select word_at from hosts where host = :name), 0) then 1 end) as since
        from jobs where host = :name and status = 'running' and finished_at is null) as running
    left join hosts on hosts.host = :name
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

#: due jobs that their worker lost, but not those to be ended as lost
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

# Not the same job at each knock: one may be at fault itself. Most have not been tried, and the
# first of them is found without sorting all.

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

#: stands for no limit of running jobs
UNLIMITED = 10**9

#: jobs that one statement sets aside, admits or lets fail
PORTION = 1000

#: seconds after its last rest in which a host is remembered
REMEMBERED_SECONDS = 3600.0

#: refusals of a job that its host answers for: the next ones are the job's own, where the host
#: has given another job a good answer since
HOSTS_REFUSALS = 2

#: codes of failures that show that the host answers
ANSWERED = frozenset(
    {"http_status", "bad_response", "bad_redirect", "incomplete", "too_large", "too_many_redirects"}
)

#: hosts by name, None for one that is not in trouble
States = dict[str, "Host | None"]


class Verdict(Enum):
    """What an outcome means to the job."""

    #: what it says
    OWN = "own"
    #: its host rests, and it was the only one that asked: the attempt counts
    REFUSED = "refused"
    #: its host rests: it was as good as not tried
    UNTRIED = "untried"


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

    Methods run in the caller's transaction.
    """

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host or UNLIMITED

    def lock(
        self, transaction: Transaction, hosts: Iterable[str], *, wait: bool = True
    ) -> set[str]:
        """Keep others from changing the state of `hosts`, and how many of their jobs run.

        Returns the hosts that are locked: all of them, unless it must not `wait`.
        """
        names = {f"host {host}": host for host in sorted(hosts)}
        if wait:
            transaction.lock(names)
            return set(names.values())
        return {host for name, host in names.items() if transaction.try_lock(name)}

    # --- under the locks of the hosts -------------------------------------------------------------

    def states(self, transaction: Transaction, hosts: Iterable[str]) -> States:
        """Read the states of `hosts`."""
        names = sorted(set(hosts))
        found: States = dict.fromkeys(names)
        if not names:
            return found
        wanted = " or ".join(f"host = :host{n}" for n in range(len(names)))
        keys = {f"host{n}": name for n, name in enumerate(names)}
        for row in transaction.all(f"{FIND} where {wanted}", **keys):
            found[row["host"]] = Host(**row)
        return found

    def choose(self, transaction: Transaction, due: list[Row]) -> tuple[list[Row], States]:
        """Return the due jobs that may run, and the hosts of which no more may.

        A job that its worker lost still has its place, but where its host rests.
        """
        may_run: list[Row] = []
        full: States = {}
        for host in sorted({job["host"] for job in due}):
            jobs = [job for job in due if job["host"] == host]
            state, places = self._look(transaction, host)
            if state and state.rest_until > transaction.now():
                full[host] = state
                continue
            lost = [job for job in jobs if job["status"] == "running"]
            queued = [job for job in jobs if job["status"] == "queued"]
            may_run += lost + queued[:places]
            if len(queued) > places:
                full[host] = state
        return may_run, full

    def set_aside(self, transaction: Transaction, states: States) -> None:
        """Set due jobs of these hosts aside, up to a thousand of each."""
        for host, state in states.items():
            transaction.run(SET_WAITING_ASIDE, host=host, portion=PORTION)
            if state and state.rest_until > transaction.now():
                transaction.run(SET_LOST_ASIDE, host=host, portion=PORTION)
                self._let_knock(transaction, state)

    def admit(self, transaction: Transaction, hosts: Iterable[str]) -> None:
        """Bring back as many jobs of `hosts` as may run now, or one at the end of a rest."""
        self.admit_by(transaction, self.states(transaction, hosts))

    def admit_by(self, transaction: Transaction, states: States) -> None:
        """Do as `admit` does, where the states have been read."""
        now = transaction.now()
        rows = []
        for host, state in states.items():
            if state and state.rest_until > now:
                self._let_knock(transaction, state)
            else:
                since = state.word_at if state else 0.0
                places = min(PORTION, self._limit(state))
                rows.append({"host": host, "places": places, "since": since})
        for count in transaction.run_many(ADMIT, rows):
            if count > 1:  # the worker whose job has ended takes one
                transaction.ring()

    def hear(
        self,
        transaction: Transaction,
        ended: Sequence[tuple[Job, Hashed | Failure]],
        states: States,
        retry_seconds: float,
    ) -> list[Verdict]:
        """Note what outcomes say of hosts, before they are stored; return what they mean to jobs.

        `states` must hold their hosts, and is brought up to date; `retry_seconds` is a host's first
        pause.
        """
        beside = {
            host: self._count_running(transaction, host)
            for host in {job.host for job, outcome in ended if _is_word(outcome)}
        }
        verdicts = []
        for job, outcome in ended:
            state, others = states[job.host], max(0, beside.get(job.host, 0) - 1)
            beside[job.host] = others
            verdict = Verdict.OWN
            if isinstance(outcome, Failure) and _is_word(outcome) and not _is_own(job, state):
                state = states[job.host] = state or Host(job.host, most=self._per_host)
                word = Word.of(outcome, job.started_at or 0.0)
                if not others and self._stays_away(transaction, state, word):
                    state.give_up(transaction.now())
                counts = state.refused(word, others, transaction.now(), retry_seconds)
                verdict = Verdict.REFUSED if counts else Verdict.UNTRIED
            elif state and _is_answer(outcome):
                state.answered(job.started_at or 0.0)
            verdicts.append(verdict)
        transaction.run_many(STORE, [vars(state) for state in states.values() if state])
        return verdicts

    # --- in transactions of their own -------------------------------------------------------------

    def given_up(self, transaction: Transaction) -> list[Host]:
        """Return the hosts of which jobs are still to fail; a cheap read."""
        return [Host(**row) for row in transaction.all(GIVEN_UP)]

    def fail_waiting(self, transaction: Transaction, host: str) -> list[Job]:
        """Let jobs fail that waited when the host was given up, up to a thousand; return them."""
        self.lock(transaction, [host])
        states = self.states(transaction, [host])
        state = states[host]
        if state is None or state.given_up_at is None:  # it is back, or another worker did it
            return []
        failed = transaction.all(FAIL, **vars(state), portion=PORTION)
        if len(failed) < PORTION:
            transaction.run(ALL_FAILED, host=host)
        self.admit_by(transaction, states)
        return [Job(**row) for row in failed]

    def tidy(self, transaction: Transaction) -> None:
        """Forget troubles that are long over, and times from before the clock was set back."""
        transaction.run(FORGET, remembered=REMEMBERED_SECONDS)
        transaction.run(AFTER_CLOCK_SET_BACK)

    def newest(self, transaction: Transaction, limit: int) -> list[HostReport]:
        """Return the hosts that were in trouble last."""
        now = transaction.now()
        reports = []
        for row in transaction.all(NEWEST, limit=limit):
            resting = row.pop("rests") and row["rest_until"] > now
            row["room"] = 0 if resting else min(row["room"], self._per_host)
            row["rest_until"] = row["rest_until"] if resting else None
            reports.append(HostReport(**row))
        return reports

    def _look(self, transaction: Transaction, host: str) -> tuple[Host | None, int]:
        """Return a host's state and how many more of its jobs may run.

        The room that it has made since its last word is not taken by those that ran before: a long
        download must not keep others waiting.
        """
        (row,) = transaction.all(LOOK, name=host)
        running, since = row.pop("running"), row.pop("since")
        state = Host(**row) if row["host"] else None
        return state, max(0, min(self._per_host - running, self._limit(state) - since))

    def _limit(self, state: Host | None) -> int:
        return min(self._per_host, state.room) if state else self._per_host

    def _count_running(self, transaction: Transaction, host: str) -> int:
        row = transaction.one(COUNT_RUNNING, host=host)
        return int(row["running"]) if row else 0

    def _stays_away(self, transaction: Transaction, state: Host, word: Word) -> bool:
        """Tell whether to give the host up; a job that waits alone has its own attempts."""
        is_last = state.stays_away(word)
        return is_last and transaction.one(NEXT_IN_TURN, host=state.host) is not None

    def _let_knock(self, transaction: Transaction, state: Host) -> None:
        """Let one job be due at the end of a rest, if none is yet."""
        times = {"host": state.host, "rest_until": state.rest_until}
        if transaction.one(IS_KNOCK_SET, **times) is None:
            following = NEXT_IN_TURN
            if state.refuses:  # the job that was refused must not be the only one to choose from
                transaction.run(SET_WAITING_ASIDE, host=state.host, portion=PORTION)
                following = NEXT_TO_KNOCK
            if transaction.run(SET_KNOCK.format(next=following), **times):
                transaction.ring()  # else idle workers might look only after that


def _is_word(outcome: Hashed | Failure) -> bool:
    """Tell whether it is the word of the job's own host: jobs are counted by no other."""
    return isinstance(outcome, Failure) and outcome.of_host and not outcome.redirected


def _is_own(job: Job, state: Host | None) -> bool:
    """Tell whether a refusal is the job's own: the host refuses it, and answers others."""
    return (
        job.refusals >= HOSTS_REFUSALS
        and state is not None
        and (state.good_at or 0.0) > (job.refused_at or 0.0)
    )


def _is_answer(outcome: Hashed | Failure) -> bool:
    return isinstance(outcome, Hashed) or (not outcome.of_host and outcome.code in ANSWERED)
