"""Verdicts: the effect of outcomes on the state of hosts, and the effect of that on their jobs.

The rules of hosts are in `politeness`; this applies them, under the locks of the hosts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from enum import Enum
from typing import TypeGuard

from md5light.errors import Failure
from md5light.job import Hashed, Job
from md5light.queue.database import Transaction
from md5light.queue.hosts import Standing, Standings
from md5light.queue.politeness import Host, Word

#: columns of the table of hosts
COLUMNS = [field.name for field in dataclasses.fields(Host)]

STORE = """
    insert into hosts ({columns}) values ({values}) on conflict (host) do update set {changes}
""".format(
    columns=", ".join(COLUMNS),
    values=", ".join(f":{column}" for column in COLUMNS),
    changes=", ".join(f"{column} = excluded.{column}" for column in COLUMNS),
)

#: refusals of a job that count against its host: further ones count against the job, if the host
#: has given another job a good answer since the last
HOSTS_REFUSALS = 2

#: codes of failures that prove that the host answers
ANSWERED = frozenset(
    {"http_status", "bad_response", "bad_redirect", "incomplete", "too_large", "too_many_redirects"}
)


class Verdict(Enum):
    """The effect of an outcome on the job."""

    #: the outcome is the job's own
    OWN = "own"
    #: its host rests, and it was the host's only request: the attempt counts
    REFUSED = "refused"
    #: its host rests: the attempt does not count
    UNTRIED = "untried"


class Verdicts:
    """Judges outcomes: `per_host` jobs of a host run at once, `first_pause` is a host's first."""

    def __init__(self, per_host: int, first_pause: float) -> None:
        self._per_host = per_host
        self._first_pause = first_pause

    def hear(
        self,
        transaction: Transaction,
        ended: Iterable[tuple[Job, Hashed | Failure]],
        standings: Standings,
    ) -> list[Verdict]:
        """Update the hosts by outcomes that are about to be stored; return the verdicts on jobs.

        `standings` must hold their hosts; their troubles are brought up to date.
        """
        now = transaction.now()
        others = {host: standing.running for host, standing in standings.items()}
        verdicts = []
        for job, outcome in ended:
            others[job.host] = max(0, others[job.host] - 1)
            standing = standings[job.host]
            verdicts.append(self._judge(standing, job, outcome, others[job.host], now))
        troubles = [vars(each.trouble) for each in standings.values() if each.trouble]
        transaction.run_many(STORE, troubles)
        return verdicts

    def _judge(
        self, standing: Standing, job: Job, outcome: Hashed | Failure, others: int, now: float
    ) -> Verdict:
        trouble = standing.trouble
        if is_word(outcome) and not _is_own(job, trouble):
            trouble = standing.trouble = trouble or Host(job.host, most=self._per_host)
            word = Word.of(outcome, job.started_at or 0.0)
            # A job that waits alone has its own attempts.
            if not others and standing.has_aside and trouble.stays_away(word):
                trouble.give_up(now)
            counts = trouble.refused(word, others, now, self._first_pause)
            return Verdict.REFUSED if counts else Verdict.UNTRIED
        if trouble and _is_answer(outcome):
            trouble.answered(job.started_at or 0.0)
        return Verdict.OWN


def is_word(outcome: Hashed | Failure) -> TypeGuard[Failure]:
    """Tell whether it is the word of the job's own host: jobs are counted by no other."""
    return isinstance(outcome, Failure) and outcome.of_host and not outcome.redirected


def _is_own(job: Job, trouble: Host | None) -> bool:
    """Tell whether a refusal is the job's own: the host refuses it, and answers others."""
    return (
        job.refusals >= HOSTS_REFUSALS
        and trouble is not None
        and (trouble.good_at or 0.0) > (job.refused_at or 0.0)
    )


def _is_answer(outcome: Hashed | Failure) -> bool:
    return isinstance(outcome, Hashed) or (not outcome.of_host and outcome.code in ANSWERED)
