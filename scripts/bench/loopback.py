"""Shared by the benchmarks: nginx as origin, processes to compare with, the printing of figures."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent

NGINX = """
daemon off; master_process off; pid nginx.pid; error_log error.log; worker_rlimit_nofile 4096;
events {{ worker_connections 2048; }}
http {{
    log_format times $msec;
    access_log {access_log}; sendfile on; keepalive_requests 1000000; etag off;
    default_type text/plain;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{http} backlog=1024;
        {tls}
        root .;
        location /slow/ {{ limit_rate 100000; }}
    }}
}}
"""

TLS = "listen 127.0.0.1:{https} ssl; ssl_certificate cert.pem; ssl_certificate_key cert.pem;"


@contextlib.contextmanager
def serving(files: dict[str, bytes], times: Path | None = None) -> Iterator[str]:
    """Serve `files` by path on loopback, those under slow/ at 100 kB/s; yields the root's URL."""
    with tempfile.TemporaryDirectory(prefix="md5light-nginx-") as folder:
        for path, body in files.items():
            file = Path(folder, path)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(body)
        with nginx(Path(folder), times) as roots:
            yield roots["http"]


@contextlib.contextmanager
def nginx(folder: Path, times: Path | None = None) -> Iterator[dict[str, str]]:
    """Run nginx over `folder`; yields the URL of its root by scheme.

    It serves https where `folder` has a cert.pem. The Unix time of each request is written into
    `times`, within a fifth of a second.
    """
    ports = {"http": free_port()}
    if (folder / "cert.pem").exists():
        ports["https"] = free_port()
    access_log = f"{times} times buffer=64k flush=200ms" if times else "off"
    tls = TLS.format(**ports) if "https" in ports else ""
    (folder / "nginx.conf").write_text(NGINX.format(access_log=access_log, tls=tls, **ports))
    command = ["nginx", "-p", str(folder), "-c", "nginx.conf"]
    process = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, env={"PATH": "/usr/sbin:/usr/bin"}
    )
    try:
        for port in ports.values():
            wait_for(port)
        yield {scheme: f"{scheme}://127.0.0.1:{port}" for scheme, port in ports.items()}
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until somebody listens on `port`."""
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}")


def python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a Python process that finds this repository and whose output can be read."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, **options)


def figure(name: str, value: float, need: float, unit: str = "", *, least: bool = False) -> bool:
    """Print a figure with its need, an upper bound unless `least`; returns whether it is met."""
    met = value >= need if least else value <= need
    bound = f"needed at {'least' if least else 'most'} {need:g}{unit}"
    print(f"{name}: {value:.3g}{unit}, {bound}: {'met' if met else 'NOT MET'}", flush=True)
    return met
