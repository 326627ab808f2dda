"""Log lines: one event, one line, whatever is in its fields."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from md5light import logs
from md5light.config import LogConfig
from md5light.logs import Log, Outage
from tests.child import Child
from tests.waiting import wait_until

log = Log("md5light.tests")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leaves the process's logging as it was."""
    root, ours = logging.getLogger(), logging.getLogger("md5light")
    before = root.handlers, root.level, ours.level
    yield
    root.handlers = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def written(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that standard error holds."""
    captured = capsys.readouterr()
    assert captured.out == ""
    line, end = captured.err[:-1], captured.err[-1:]
    assert end == "\n"
    assert line.splitlines() == [line]
    return line


def test_a_line_is_time_level_event_and_fields_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(LogConfig())
    log.warning("tried", job="0e4f", attempts=2, seconds=0.12345, left=None)
    assert re.fullmatch(
        r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=warning event=tried"
        r" job=0e4f attempts=2 seconds=0\.123 left=None",
        written(capsys),
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain/word:8080?a&b", "plain/word:8080?a&b"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('"', '"\\""'),
        ("line\nevent=forged", '"line\\nevent=forged"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("é\u2028\x85", '"\\u00e9\\u2028\\u0085"'),
        ("\udcff", '"\\udcff"'),
    ],
)
def test_a_value_can_not_forge_a_field_or_a_line(
    capsys: pytest.CaptureFixture[str], value: str, shown: str
) -> None:
    logs.setup(LogConfig())
    log.info("submitted", url=value)
    assert written(capsys).endswith(f" event=submitted url={shown}")


@pytest.mark.parametrize(
    "value", ["plain", "two words", "line\nbreak", "é\u2028\x85\x9b", "\udcff", 7, 0.12345, None]
)
def test_json_lines_hold_the_same_fields_with_their_types(
    capsys: pytest.CaptureFixture[str], value: object
) -> None:
    logs.setup(LogConfig(format="json"))
    log.error("failed", reason=value)
    line = written(capsys)
    fields = json.loads(line)
    assert list(fields) == ["time", "level", "event", "reason"]
    assert (fields["level"], fields["event"], fields["reason"]) == ("error", "failed", value)
    assert line.isascii()


def test_json_writes_other_things_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(LogConfig(format="json"))
    log.error("failed", reason=ValueError("no"))
    assert json.loads(written(capsys))["reason"] == "no"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_a_field(capsys: pytest.CaptureFixture[str], form: str) -> None:
    logs.setup(LogConfig(format=form))
    try:
        raise ValueError("what\nhappened")
    except ValueError:
        log.exception("broken", job="0e4f")
    line = written(capsys)
    assert "test_logs.py" in line
    assert r"ValueError: what\nhappened" in line


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["d", "i", "w", "e"]),
        ("info", ["i", "w", "e"]),
        ("warning", ["w", "e"]),
        ("error", ["e"]),
    ],
)
def test_what_is_below_the_level_is_not_written(
    capsys: pytest.CaptureFixture[str], level: str, shown: list[str]
) -> None:
    logs.setup(LogConfig(level=level))
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")
    assert re.findall(r"event=(\w)", capsys.readouterr().err) == shown


def test_verbose_goes_before_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(LogConfig(level="error"), verbose=True)
    log.debug("detail")
    assert written(capsys).endswith("level=debug event=detail")


def test_of_the_libraries_only_warnings_are_written_in_the_same_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.setup(LogConfig(level="debug"))
    logging.getLogger("waitress").info("chatter %s", 1)
    logging.getLogger("waitress.queue").warning("Task queue depth is %d", 3)
    assert written(capsys).endswith('level=warning event="Task queue depth is 3"')


def test_a_second_setup_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(LogConfig())
    logs.setup(LogConfig(format="json"))
    log.info("once")
    assert json.loads(written(capsys))["event"] == "once"


@pytest.mark.parametrize("form", ["text", "json"])
def test_in_the_journal_each_line_begins_with_its_priority(form: str, tmp_path: Path) -> None:
    script = """
import os, sys
from md5light import logs
from md5light.config import LogConfig
journal = open(sys.argv[2], "w")
status = os.fstat(journal.fileno())
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"

def log_to(stream):
    sys.stderr = stream
    logs.setup(LogConfig(level="debug", format=sys.argv[1]))
    log = logs.Log("md5light")
    for write in (log.debug, log.info, log.warning, log.error):
        write("happened")

log_to(journal)
log_to(sys.stdout)
"""
    with Child(script, form, tmp_path / "journal") as child:
        assert child.end() == 0
        lines = (tmp_path / "journal").read_text().splitlines()
        assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>"]
        elsewhere = [child.line() for _ in range(4)]
    assert {line[0] for line in elsewhere} == {"t" if form == "text" else "{"}


def test_the_journal_is_told_from_a_stream_that_is_no_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    logs.setup(LogConfig())
    log.info("once")
    assert written(capsys).startswith("time=")


def test_lines_of_a_request_tell_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(LogConfig())
    token = logs.request_id.set("7f3a")
    log.info("submitted", job="0e4f")
    logs.request_id.reset(token)
    assert written(capsys).endswith(" event=submitted job=0e4f request=7f3a")
    log.info("later")
    assert written(capsys).endswith(" event=later")


def test_json_stays_json_where_standard_error_is_not_utf_8() -> None:
    script = """
import sys
sys.stderr.reconfigure(encoding="ascii")
from md5light import logs
from md5light.config import LogConfig
logs.setup(LogConfig(format="json"))
logs.Log("md5light").info("submitted", url="http://exämple.com/€")
"""
    with Child(script) as child:
        assert json.loads(child.line())["url"] == "http://exämple.com/€"


def events(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.findall(r"event=(.*)", capsys.readouterr().err)


def test_an_outage_is_two_lines_however_often_it_is_met(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.setup(LogConfig())
    outage = Outage(log, "gone", "back")
    outage.succeed()
    for number in range(5):
        outage.fail(reason=number)
    assert outage.lasts
    assert events(capsys) == ["gone reason=0"]
    for _ in range(5):
        outage.succeed()
    assert not outage.lasts
    assert [line.split("=")[0] for line in events(capsys)] == ["back seconds"]
    outage.fail(reason=5)
    assert events(capsys) == ["gone reason=5"]


def test_an_outage_that_some_meet_and_others_do_not_is_two_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.setup(LogConfig())
    outage = Outage(log, "gone", "back", quiet_seconds=0.2)
    for _ in range(10):
        outage.fail()
        outage.succeed()
    assert events(capsys) == ["gone"]

    def is_over() -> bool:
        outage.succeed()
        return not outage.lasts

    wait_until(is_over)
    assert len(events(capsys)) == 1


LOGGING = """
import md5light.startup, sys
from md5light import logs
from md5light.config import LogConfig
logs.setup(LogConfig())
for number in range(3):
    logs.Log("md5light").info("happened", text="x" * 10_000)
    print("complaint", file=sys.stderr)
sys.exit(7)
"""


@pytest.mark.parametrize("stderr", ["full disk", "reader that died", "closed"])
def test_what_cannot_be_logged_stops_nothing(stderr: str) -> None:
    redirections = {
        "full disk": "2>/dev/full",
        "reader that died": "2> >(:)",
        "closed": "2>&-",
    }
    shell = f'exec "$@" {redirections[stderr]}'
    with Child(LOGGING, enter=["bash", "-c", shell, "bash"]) as child:
        assert child.end() == 7
        assert child.line() == ""


def test_nothing_is_written_into_a_file_that_got_the_number_of_a_closed_stream(
    tmp_path: Path,
) -> None:
    script = """
import md5light.startup, sys
data = open(sys.argv[1], "w")
print("to nobody", file=sys.stderr)
print("to nobody")
print(sys.stdin.read(), end="", file=data)
"""
    with Child(
        script, tmp_path / "data", enter=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    ) as child:
        assert child.end() == 0
    assert (tmp_path / "data").read_text() == ""
