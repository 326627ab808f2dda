"""The documents' pictures: python -m tests.screenshot FOLDER, or scripts/screenshot."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser import chromium
from tests.origin import Origin, Peer, Script, reply
from tests.service import Service, running

MEGABYTE = bytes(1_000_000)
TOTAL, SENT = 658, 421


def take_screenshots(folder: Path) -> None:
    """Write page.png, the page with a job of each kind, and batch.png, the page of a list.

    All that they show is served on loopback.
    """
    with (
        tempfile.TemporaryDirectory() as service_folder,
        Origin() as origin,
        running(Path(service_folder), download={"read_timeout": 60}) as service,
        chromium() as browser,
    ):
        origin.serve("/photos-2024.zip", MEGABYTE * 48)
        origin.serve("/debian-netinst.iso", _half_of_it(origin))
        page = browser.new_page(
            viewport={"width": 880, "height": 600},
            color_scheme="light",
            locale="en-GB",
            reduced_motion="reduce",  # a bar on its way would show less than its figures
        )
        _submit_all(page, service, origin)
        page.locator("h1").click()  # out of the field
        page.screenshot(path=folder / "page.png", full_page=True)
        _submit_list(page, service, origin)
        page.screenshot(
            path=folder / "batch.png", clip={"x": 0, "y": 0, "width": 880, "height": 1500}
        )


def _half_of_it(origin: Origin) -> Script:
    """Make a download that stands still after SENT megabytes."""
    gate = origin.gate()

    def script(peer: Peer) -> None:
        peer.send(reply(length=TOTAL * len(MEGABYTE)))
        for _ in range(SENT):
            peer.send(MEGABYTE)
        gate.wait(60)

    return script


def _submit_all(page: Page, service: Service, origin: Origin) -> None:
    page.goto(service.url)
    for path, status in (
        ("/missing.tar.gz", "Failed"),
        ("/photos-2024.zip", "Done"),
        ("/debian-netinst.iso", "Running"),
    ):
        page.locator("#url").fill(origin.url(path, host="localhost"))
        page.locator("#submit button").click()
        expect(page.locator(".name").first).to_have_text(path[1:])
        expect(page.locator(".status").first).to_have_text(status)
    expect(page.locator(".figures").first).to_contain_text(f"{SENT}\u00a0MB", timeout=30_000)
    expect(page.get_by_role("progressbar")).to_have_js_property("value", SENT * len(MEGABYTE))


def _submit_list(page: Page, service: Service, origin: Origin) -> None:
    """Show a list of which most lines match, one does not, and one is missing."""
    lines = []
    for number in range(1, 41):
        path = f"/release/part-{number:02}.tar.gz"
        if number != 3:
            origin.serve(path, path.encode())
        expected = hashlib.md5(b"old" if number == 5 else path.encode()).hexdigest()
        lines.append(f"{origin.url(path, host='localhost')} {expected}")
    page.goto(service.url)
    page.locator("#list > summary").click()
    page.locator("#lines").fill("\n".join(lines))
    page.locator("#list .folded summary").click()
    page.locator("#name").fill("release-2024 on the mirror")
    page.locator("#batch .main").click()
    expect(page.locator(".head .status")).to_have_text("Done", timeout=30_000)
    page.set_viewport_size({"width": 880, "height": 1500})


if __name__ == "__main__":
    take_screenshots(Path(sys.argv[1]))
