"""Politeness: how a host that asks for rest, or can't be reached, is asked again.

The rules, without a database; `hosts` stores the state and applies it to jobs.

* A host's word is an answer 429 or 503, a connection that is refused or reset, or none at all. It
  begins a rest, in which the host gets no connection: as long as it asked for, else a pause that
  doubles with each rest in a row.
* After a rest one job knocks. Each good answer lets one more run at once, up to `most`.
* A word while other jobs of the host run is about how many they are: `most` falls below that, and
  no attempt counts. After each GOOD_ANSWERS in a row `most` is one more.
* A 429 or 503 without a time, to the only job and soon after a good answer, is about pace: the time
  between two starts grows until answers are good, then shrinks slowly.
* Words to jobs that had begun before the last word are of the same burst: they make no rest.
* A host that refused every knock for GIVE_UP_RESTS rests, or until they would add up to more than
  GIVE_UP_SECONDS, is given up: what waits for it fails. What is submitted later begins again.
"""

from __future__ import annotations

from dataclasses import dataclass

from md5light.errors import Failure, TemporaryFailure
from md5light.queue.backoff import LONGEST_SECONDS, backoff_seconds

#: good answers in a row after which one more job may run at once, and a learned pause is halved
GOOD_ANSWERS = 50

#: the longest pause that is remembered for the next trouble: a ban needs the same peace each time,
#: but an outage of hours says nothing about the next one
REMEMBERED_SECONDS = 300.0

#: the shortest time between two starts that is tried, and below which no pace is needed any more
FIRST_GAP_SECONDS = 0.05
LAST_GAP_SECONDS = 0.01

#: how much the time between two starts grows at a refusal, after few good answers and after many
SEARCH_FACTOR = 1.5
CORRECTION_FACTOR = 1.2
#: good answers after which the pace was nearly right
SETTLED_ANSWERS = 3
#: the pace is multiplied by this after each good answer
EASING_FACTOR = 0.99

#: a host is given up after so many rests in a row, or, after a few, when the next one would make
#: them longer than so many seconds in all
GIVE_UP_RESTS = 10
LEAST_RESTS = 3
GIVE_UP_SECONDS = 840.0


@dataclass(frozen=True)
class Word:
    """What a host said to one job, or that it said nothing."""

    code: str
    message: str
    #: when its job was claimed
    started_at: float
    #: the rest that the host asked for, in seconds; 0: it named none
    asked: float

    @classmethod
    def of(cls, failure: Failure, started_at: float) -> Word:
        asked = failure.retry_after if isinstance(failure, TemporaryFailure) else None
        return cls(*failure.told, started_at, asked or 0.0)


@dataclass
class Host:
    """A host in trouble, as its row; times are Unix seconds."""

    host: str
    #: jobs that may run at once, as far as is known
    most: int
    #: no job may start before
    rest_until: float = 0.0
    #: rests in a row without a good answer
    rests: int = 0
    #: the latest pause, in seconds; 0: none yet
    pause: float = 0.0
    #: jobs that may run at once now
    room: int = 1
    #: seconds between two starts; 0: any
    gap: float = 0.0
    #: good answers in a row
    good_answers: int = 0
    #: when the job of the latest good answer was claimed
    good_at: float | None = None
    #: when it last asked for rest or could not be reached, and what that was
    word_at: float = 0.0
    error_code: str = ""
    error_message: str = ""
    #: what was submitted until then fails; None: nothing
    given_up_at: float | None = None

    @property
    def refuses(self) -> bool:
        """Tell whether its latest answer was not good."""
        return not self.good_answers

    def stays_away(self, word: Word) -> bool:
        """Tell whether the knock that it refused with this word is the last."""
        # Pauses double: all so far are as long as the next one.
        is_long = self.rests >= LEAST_RESTS and 4 * self.pause > GIVE_UP_SECONDS
        return word.started_at > self.word_at and (self.rests >= GIVE_UP_RESTS or is_long)

    def answered(self, started_at: float) -> None:
        """Note a good answer to a job claimed at `started_at`."""
        if started_at <= self.word_at:  # it was let in before the host spoke
            return
        self.good_at = max(started_at, self.good_at or 0.0)
        self.good_answers += 1
        self.rests = 0
        self.pause = min(self.pause, REMEMBERED_SECONDS)
        self.given_up_at = None
        if self.good_answers % GOOD_ANSWERS == 0:
            self.most += 1
            self.pause /= 2
        if self.gap:
            self.gap = self.gap * EASING_FACTOR if self.gap > LAST_GAP_SECONDS else 0.0
            self.rest_until = self.good_at + self.gap
        else:
            self.room = min(self.room + 1, self.most)

    def refused(self, word: Word, others: int, now: float, first_seconds: float) -> bool:
        """Note its word to a job beside which `others` ran; tell whether the attempt counts.

        `first_seconds` is the first pause, before jitter.
        """
        in_burst = word.started_at <= self.word_at
        if others or in_burst:
            self.most = max(1, min(self.most, others))
        if in_burst:
            self.rest_until = max(self.rest_until, now + word.asked)
            return False
        is_pace = not others and self._is_pace(word, first_seconds)
        self.error_code, self.error_message, self.word_at = word.code, word.message, now
        if is_pace:
            self._slow_down(word)
        else:
            self._rest(word, now, first_seconds)
        self.good_answers = 0
        return not others and not is_pace

    def give_up(self, now: float) -> None:
        """Let what waits fail; the word that follows begins a trouble as the first one did."""
        self.given_up_at = now
        self.rests, self.pause = 0, 0.0

    def _is_pace(self, word: Word, seconds: float) -> bool:
        """Tell whether the host speaks of pace: it answered another request a moment ago."""
        soon = self.good_at is not None and word.started_at - self.good_at < seconds
        return soon and word.code == "http_status" and not word.asked

    def _slow_down(self, word: Word) -> None:
        good_at = self.good_at or 0.0
        settled = self.good_answers >= SETTLED_ANSWERS
        factor = CORRECTION_FACTOR if settled else SEARCH_FACTOR
        tried = max(self.gap, word.started_at - good_at)
        self.gap = max(factor * tried, FIRST_GAP_SECONDS)
        self.rest_until = good_at + self.gap
        self.room = 1

    def _rest(self, word: Word, now: float, first_seconds: float) -> None:
        if self.rests:
            self.pause = min(2 * self.pause, LONGEST_SECONDS)
        else:
            self.pause = max(self.pause, backoff_seconds(1, first_seconds))
        # A time that was asked for and heeded did not suffice, where this is not the first rest.
        seconds = max(word.asked, self.pause) if self.rests or not word.asked else word.asked
        self.rests += 1
        self.rest_until = now + seconds
        self.room, self.gap = 1, 0.0
