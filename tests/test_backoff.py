"""Waits between attempts: they double, to an hour, and are spread."""

from __future__ import annotations

import pytest

from md5light.queue.backoff import LONGEST_SECONDS, backoff_seconds


def samples(attempts: int, first_seconds: float, at_least: float = 0.0) -> list[float]:
    return [backoff_seconds(attempts, first_seconds, at_least) for _ in range(500)]


@pytest.mark.parametrize(("attempts", "doubled"), [(1, 10), (2, 20), (3, 40), (8, 1280)])
def test_waits_double_and_stay_within_a_quarter_of_that(attempts: int, doubled: float) -> None:
    waits = samples(attempts, 10)
    assert min(waits) >= 0.75 * doubled
    assert max(waits) <= 1.25 * doubled


def test_what_failed_together_does_not_come_back_together() -> None:
    waits = samples(1, 10)
    assert min(waits) < 9 < 11 < max(waits)


@pytest.mark.parametrize("attempts", [10, 1000, 10**9])
def test_no_wait_is_longer_than_an_hour(attempts: int) -> None:
    assert samples(attempts, 3600) == pytest.approx([LONGEST_SECONDS] * 500, rel=0.25)
    assert max(samples(attempts, 3600)) == LONGEST_SECONDS == 3600


def test_the_other_side_may_ask_for_more_patience_but_not_for_less() -> None:
    assert set(samples(1, 10, at_least=60)) == {60}
    assert min(samples(4, 10, at_least=1)) >= 60


def test_the_other_side_can_not_ask_for_more_than_an_hour() -> None:
    assert set(samples(1, 10, at_least=10**6)) == {LONGEST_SECONDS}


def test_without_a_first_wait_there_is_none() -> None:
    assert set(samples(5, 0)) == {0}
