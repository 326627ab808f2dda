"""The progress shown while the client waits: on terminals of every width, and in pipes."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from md5light.client.progress import Progress, duration
from tests.client import BATCH, NONE, as_json, batch, environment, in_turn, run, serve
from tests.origin import Origin
from tests.terminal import Terminal
from tests.waiting import wait_until

MD5LIGHT = [sys.executable, "-m", "md5light"]
URL = "https://files.example.org/a"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.9, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.6, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (360_000, "100 h 0 min"),
    ],
)
def test_times_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def counts(**statuses: int) -> dict[str, int]:
    return {**NONE, **statuses, "total": sum(statuses.values())}


class Steps:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_in_a_pipe_there_is_a_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Steps()
    with Progress(clock=clock) as progress:
        for _ in range(25):
            progress.show(counts(waiting=9_000 - int(clock.now), hashed=int(clock.now)))
            clock.now += 5
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "md5light: 160 of 9,000 lines, 1/s, 2 h 27 min left",
        "md5light: 220 of 9,000 lines, 1/s, 2 h 26 min left",
    ]


def test_slow_batches_have_a_rate_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Steps()
    with Progress(clock=clock) as progress:
        progress.show(counts(waiting=10))
        clock.now += 120
        progress.show(counts(waiting=5, running=1, hashed=1, failed=2, mismatched=1))
    assert capsys.readouterr().err == (
        "md5light: 4 of 10 lines, 2 failed, 1 mismatched, 2/min, 3 min 0 s left\n"
    )


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Steps()
    with Progress(quiet=True, clock=clock) as progress:
        progress.show(counts(waiting=10))
        clock.now += 120
        progress.show(counts(waiting=5, hashed=5))
        progress.say("the server is away")
    assert capsys.readouterr().err == ""


# --- on a terminal --------------------------------------------------------------------------------


@pytest.fixture
def gate(origin: Origin) -> str:
    """A batch that runs until the test is over: its last state comes only then."""
    return serve(
        origin,
        batch("running", waiting=999_990, hashed=7, failed=2, mismatched=1),
        batch("running", waiting=999_980, hashed=17, failed=2, mismatched=1),
    )


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 2, 20, 33, 80, 200])
def test_the_line_is_right_at_any_width(columns: int, gate: str, tmp_path: Path) -> None:
    env = environment(gate, tmp_path)
    with Terminal([*MD5LIGHT, "wait", BATCH], env=env, cwd=tmp_path, columns=columns) as terminal:
        wait_until(lambda: len(terminal.drawn()) > 3 or (columns == 1 and terminal.output))
        drawn = terminal.drawn()
    assert max(map(len, drawn), default=0) < columns
    assert "\n" not in terminal.output
    if columns == 33:
        assert drawn[0] == "10 of 1,000,000 lines, 2 failed"
    if columns >= 80:
        assert drawn[0] == "10 of 1,000,000 lines, 2 failed, 1 mismatched"
        assert re.fullmatch(r"20 of .* mismatched, [\d,]+/s, \d+ (h|min) \d+ \w+ left", drawn[1])


@pytest.mark.slow
def test_the_line_follows_the_width(gate: str, tmp_path: Path) -> None:
    env = environment(gate, tmp_path, COLUMNS="200")
    with Terminal([*MD5LIGHT, "wait", BATCH], env=env, cwd=tmp_path, columns=100) as terminal:
        terminal.wait_for("left")
        terminal.resize(23)
        wait_until(lambda: terminal.drawn()[-1] == "20 of 1,000,000 lines"[:22])
        terminal.resize(100)
        wait_until(lambda: terminal.drawn()[-1].endswith("left"))


@pytest.mark.slow
def test_the_line_is_gone_at_the_end(origin: Origin, tmp_path: Path) -> None:
    running = batch("running", waiting=1, hashed=1)
    server = serve(origin, running, running, batch(hashed=2))
    with Terminal(
        [*MD5LIGHT, "wait", BATCH], env=environment(server, tmp_path), cwd=tmp_path
    ) as terminal:
        assert terminal.end() == 0
        assert "1 of 2 lines" in terminal.output
        assert terminal.screen() == ["md5light: 2 lines in 0 s: 2 hashed", ""]


@pytest.mark.slow
@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_without_a_terminal_nothing_is_drawn(
    quiet: list[str], origin: Origin, tmp_path: Path
) -> None:
    server = serve(origin, batch("running", waiting=1), batch(hashed=1))
    done = run("wait", BATCH, *quiet, server=server, cwd=tmp_path)
    summary = "" if quiet else "md5light: 1 line in 0 s: 1 hashed\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", summary)


@pytest.mark.slow
@pytest.mark.parametrize("plain", [{"TERM": "dumb"}, {"NO_COLOR": "1", "TERM": "xterm-256color"}])
def test_no_colours_and_nothing_for_a_dumb_terminal(
    plain: dict[str, str], origin: Origin, tmp_path: Path
) -> None:
    server = serve(origin, batch("running", failed=1, waiting=1), batch(failed=2))
    env = environment(server, tmp_path, **plain)
    with Terminal([*MD5LIGHT, "wait", BATCH], env=env, cwd=tmp_path) as terminal:
        terminal.end()
        assert not re.search(r"\x1b\[[\d;]*m", terminal.output)
        assert ("\x1b" in terminal.output) is (plain["TERM"] != "dumb")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["submit", "verify", "wait"])
def test_ctrl_c_stops_the_waiting_and_says_how_to_go_on(
    verb: str, gate: str, tmp_path: Path
) -> None:
    env = environment("http://127.0.0.1:1", tmp_path)
    words = {
        "submit": ["submit", URL, "-o", "a b", "--names", "path"],
        "verify": ["verify", URL],
        "wait": ["wait", BATCH, "--manifest", "csv"],
    }[verb]
    more = {
        "submit": " --names path --output 'a b' --manifest ndjson",
        "verify": "",
        "wait": " --manifest csv",
    }[verb]
    server = gate.replace("//", "//ann:secret@")
    command = [*MD5LIGHT, *words, "--server", server]
    with Terminal(command, env=env, cwd=tmp_path, columns=300) as terminal:
        terminal.wait_for("of 1,000,000")
        terminal.type("\x03")
        assert terminal.end() == 130
        last = [line for line in terminal.screen() if line][-1]
        again = f"md5light wait {BATCH} --server {gate}{more}"
        assert last == f"md5light: the batch goes on; to wait again: {again}"
    assert "secret" not in terminal.output
    assert not (tmp_path / "a b").exists()


@pytest.mark.slow
def test_timeout_stops_the_waiting_and_says_how_to_go_on(gate: str, tmp_path: Path) -> None:
    began = time.monotonic()
    done = run("submit", URL, "--wait", "--timeout", "1s", server=gate, cwd=tmp_path)
    assert time.monotonic() - began >= 1
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr.splitlines() == [
        BATCH,
        f"md5light: the batch goes on; to wait again: md5light wait {BATCH} --manifest ndjson",
        "md5light: the time that --timeout allows has passed",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["submit", "verify"])
def test_no_list_on_a_terminal_is_a_usage_error(verb: str, origin: Origin, tmp_path: Path) -> None:
    env = environment(origin.url(), tmp_path)
    with Terminal([*MD5LIGHT, verb], env=env, cwd=tmp_path) as terminal:
        assert terminal.end() == 2
        assert terminal.output.startswith(f"usage: md5light {verb} ")
    assert origin.requests() == 0


# --- how often the server is asked ----------------------------------------------------------------


@pytest.mark.slow
def test_the_end_of_a_small_batch_is_seen_at_once(origin: Origin, tmp_path: Path) -> None:
    ended = time.monotonic() + 1.5
    seen: list[float] = []

    def look(peer: object) -> bool:
        now = time.monotonic()
        if now > ended:
            seen.append(now)
        peer.send(batch(hashed=1) if seen else batch("running", waiting=1))  # type: ignore[attr-defined]
        return True

    origin.serve(f"/batches/{BATCH}", look)
    assert run("wait", BATCH, server=origin.url(), cwd=tmp_path).returncode == 0
    assert seen[0] - ended < 0.25
    assert origin.requests() < 40


@pytest.mark.slow
def test_the_server_may_ask_for_longer_pauses(origin: Origin, tmp_path: Path) -> None:
    server = serve(origin, batch("running", "Retry-After: 2", waiting=1), batch(hashed=1))
    began = time.monotonic()
    assert run("wait", BATCH, server=server, cwd=tmp_path).returncode == 0
    assert time.monotonic() - began >= 2
    assert origin.requests() == 2


@pytest.mark.slow
def test_an_answer_that_breaks_off_does_not_end_the_waiting(origin: Origin, tmp_path: Path) -> None:
    away = as_json({"error": {"code": "database_unavailable", "message": "No."}}, "503 No")
    states = in_turn(
        batch("running", waiting=1),
        lambda peer: None,
        away,
        batch("running", waiting=1),
        away,
        batch(matched=1),
    )
    done = run("wait", BATCH, server=serve(origin, states), cwd=tmp_path)
    assert done.returncode == 0
    *told, summary = (line.partition(": ")[2] for line in done.stderr.splitlines())
    assert told == [
        f"{origin.url('')} can't be reached: Remote end closed connection without response; "
        "waiting for it",
        f"{origin.url('')} answers again",
        f"{origin.url('')}: No.; waiting for it",
        f"{origin.url('')} answers again",
    ]
    assert re.fullmatch(r"1 line in \d s: 1 matched", summary)
