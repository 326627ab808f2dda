#!/usr/bin/env python3
"""Time the download of a large file against `curl -s URL | openssl md5`, and measure its memory.

nginx (Debian's package) serves the file on loopback, over http and https, as a process of its own
with temporary files. Further digests are computed in the same pass: the rates of one, two and all
four are printed. Each figure is printed with its requirement; the exit status is 1 when one is not
met.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trustme
from loopback import figure, nginx, python

#: wall time of the job by that of curl and openssl in a pipe; the peak of a worker with 8 slots
MOST_RATIO = 0.9
MOST_MEGABYTES = 64

#: further digests whose rates are shown
DIGESTS = ((), ("sha256",), ("sha1", "sha256", "sha512"))

#: runs in a process of its own: COUNT downloads at once, then what they took
JOB = """
import ipaddress, pathlib, sys, threading, time
from md5light.config import DownloadConfig
from md5light.download.downloader import Downloader, Transfer
url, ca_file, count, digests = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
loopback = ipaddress.ip_network("127.0.0.1")
downloader = Downloader(DownloadConfig(allow_networks=(loopback,), ca_file=ca_file))
results = []
def run():
    results.append(downloader.download(url, Transfer(), digests=digests).md5)
threads = [threading.Thread(target=run) for _ in range(count)]
wall, cpu = time.perf_counter(), time.process_time()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
assert len(results) == count and len(set(results)) == 1
print(wall, cpu, peak, results[0])
"""

#: a thousand small files one after the other on a kept connection: CPU of each
SMALL = """
import ipaddress, sys, time
from md5light.config import DownloadConfig
from md5light.download.downloader import Downloader, Transfer
url = sys.argv[1]
downloader = Downloader(DownloadConfig(allow_networks=(ipaddress.ip_network("127.0.0.1"),)))
downloader.download(url, Transfer())
cpu = time.process_time()
for _ in range(1000):
    downloader.download(url, Transfer())
print(time.process_time() - cpu)
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--megabytes", type=int, default=1024, help="size of the file (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="each is measured so often (default: %(default)s)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="md5light-bench-") as name:
        folder = Path(name)
        write_files(folder, arguments.megabytes)
        with nginx(folder) as roots:
            return 0 if measure(folder, roots, arguments.rounds) else 1


def write_files(folder: Path, megabytes: int) -> None:
    block = os.urandom(1024 * 1024)
    with (folder / "large").open("wb") as file:
        for _ in range(megabytes):
            file.write(block)
    (folder / "small").write_bytes(block[:1024])
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "cert.pem")
    )


def measure(folder: Path, roots: dict[str, str], rounds: int) -> bool:
    kept = []
    floor = statistics.median(shell(f"openssl md5 {folder}/large")[0] for _ in range(rounds))
    print(f"openssl md5 of the local file: {floor:.2f} s")
    for root in roots.values():
        kept += large(folder, f"{root}/large", rounds)
    rates(f"{roots['http']}/large", folder, rounds)
    megabytes = job(f"{roots['https']}/large", folder, 8)[2]
    kept.append(
        figure("https: peak memory with eight downloads at once", megabytes, MOST_MEGABYTES, " MiB")
    )
    seconds = float(python(SMALL, f"{roots['http']}/small").communicate()[0])
    print(f"http: CPU of a 1 KiB file on a kept connection: {seconds:.2f} ms")
    return all(kept)


def large(folder: Path, url: str, rounds: int) -> list[bool]:
    """Measure in turns, so that what else the machine does hits both alike."""
    scheme = url.partition(":")[0]
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(shell(f"curl -s --cacert {folder}/ca.pem {url} | openssl md5"))
        ours.append(job(url, folder, 1))
    assert {md5.split()[-1] for _, md5 in theirs} == {md5 for *_, md5 in ours}
    curl = statistics.median(wall for wall, _ in theirs)
    wall = statistics.median(wall for wall, *_ in ours)
    cpu = statistics.median(cpu for _, cpu, *_ in ours)
    peak = max(peak for _, _, peak, _ in ours)
    print(f"{scheme}: curl | openssl md5 {curl:.2f} s, the job {wall:.2f} s (CPU {cpu:.2f} s)")
    return [
        figure(f"{scheme}: the job by curl | openssl md5", wall / curl, MOST_RATIO),
        figure(f"{scheme}: peak memory with one download", peak, MOST_MEGABYTES, " MiB"),
    ]


def rates(url: str, folder: Path, rounds: int) -> None:
    """Print how fast a file is downloaded and hashed, with and without further digests."""
    megabytes = (folder / "large").stat().st_size / 1e6
    runs = [[job(url, folder, 1, further) for further in DIGESTS] for _ in range(rounds)]
    for number, further in enumerate(DIGESTS):
        wall = statistics.median(run[number][0] for run in runs)
        cpu = statistics.median(run[number][1] for run in runs)
        name = " + ".join(("md5", *further))
        print(f"http: {name}: {megabytes / wall:.0f} MB/s ({wall:.2f} s, CPU {cpu:.2f} s)")


def job(
    url: str, folder: Path, count: int, further: Sequence[str] = ()
) -> tuple[float, float, float, str]:
    arguments = (url, folder / "ca.pem", count, *further)
    wall, cpu, peak, md5 = python(JOB, *arguments).communicate()[0].split()
    return float(wall), float(cpu), float(peak), md5


def shell(command: str) -> tuple[float, str]:
    """Run a command; returns its wall time and what it printed."""
    start = time.perf_counter()
    printed = subprocess.check_output(["sh", "-c", command], text=True)
    return time.perf_counter() - start, printed


if __name__ == "__main__":
    sys.exit(main())
