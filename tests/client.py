"""The client as a process, and answers of a server as a script.

done = run("submit", "list.txt", server=origin.url(""), cwd=tmp_path)
assert (done.returncode, done.stdout) == (0, f"{BATCH}\n")
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from md5light.lists.entry import Entry
from md5light.lists.formats import FORMS
from md5light.lists.writing import write
from tests.child import ROOT
from tests.forked import Forked
from tests.origin import Origin, Peer, Raw, Script, reply

BATCH = "0e4fac17-f367-4807-8c28-8a059a2f82ac"

#: variables of the person who runs the tests, which the client must not see
_OWN = ("MD5LIGHT_CONFIG", "MD5LIGHT_SERVER", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "NETRC")


def environment(server: str, home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.upper() not in _OWN}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "MD5LIGHT_SERVER": server,
        **more,
    }


def run(
    *arguments: str, server: str, cwd: Path, stdin: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run `md5light` to its end, in `cwd`, which is its home, too."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        for stream, text in zip(streams, (stdin, "", ""), strict=True):
            stream.write_text(text)
        env = environment(server, cwd, **environ)
        process = Forked("main", *arguments, cwd=cwd, env=env, streams=dict(enumerate(streams)))
        try:
            code = process.wait(60)
        finally:
            process.kill()
        out, err = (stream.read_text() for stream in streams[1:])
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(arguments, code, out, err)


# --- answers --------------------------------------------------------------------------------------

ACCEPTED = {"format": "urls", "id": BATCH, "lines": 1, "urls": 1}
NONE = {"waiting": 0, "running": 0, "hashed": 0, "matched": 0, "mismatched": 0} | {
    "failed": 0,
    "canceled": 0,
}


def as_json(value: object, status: str = "200 OK", *headers: str) -> Raw:
    return reply(
        json.dumps(value).encode() + b"\n", status, "Content-Type: application/json", *headers
    )


def error(status: str, code: str, message: str, *headers: str, **more: object) -> Raw:
    return as_json({"error": {"code": code, "message": message, **more}}, status, *headers)


def batch(status: str = "done", /, *headers: str, **counts: int) -> Raw:
    """Describe a batch with lines of these statuses."""
    described: dict[str, object] = {
        "id": BATCH,
        "status": status,
        "counts": {**NONE, **counts, "total": sum(counts.values())},
        "errors": [],
        "name": None,
    }
    return as_json(described, "200 OK", *headers)


def in_turn(*answers: Raw | Script) -> Script:
    """Give each answer once, the last one for ever."""

    def script(peer: Peer) -> bool:
        answer = answers[min(peer.number, len(answers)) - 1]
        if isinstance(answer, Raw):
            peer.send(answer)
            return True
        return bool(answer(peer))

    return script


def as_manifest(body: bytes) -> Script:
    """Answer with a manifest of the format that is asked for."""

    def script(peer: Peer) -> bool:
        named = re.search(r"[?&]format=(\w+)", peer.head)
        form = FORMS[named[1] if named else "ndjson"]
        return peer.reply(body, "200 OK", f"Content-Type: {form.media_type}")

    return script


def serve(
    origin: Origin, *states: Raw | Script, manifest: bytes = b"", accepted: Raw | None = None
) -> str:
    """Make a server that takes a batch, describes it as `states` in turn; returns its URL."""
    origin.serve("/batches", in_turn(accepted or as_json(ACCEPTED, "202 Accepted")))
    origin.serve(f"/batches/{BATCH}", in_turn(*states or (batch(hashed=1),)))
    origin.serve(f"/batches/{BATCH}/manifest", as_manifest(manifest))
    return origin.url("")


def ndjson(*entries: Entry) -> bytes:
    return b"".join(write(entries))
