"""The documents' pictures: python -m tests.screenshot FOLDER, or scripts/screenshot."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect

from md5light.batch import NewLine
from tests.browser import chromium, listing
from tests.service import Service
from tests.states import DONE, FAILED, MD5, RUNNING, In, States, line

MEGABYTE = 1_000_000
SITE = "https://files.example.org/"

WIDTH = 880
BATCH_HEIGHT = 1500


def take_screenshots(browser: Browser, folder: Path) -> None:
    """Write page.png, the page with a job of each kind, and batch.png, the page of a list."""
    with (
        tempfile.TemporaryDirectory() as service_folder,
        Service(Path(service_folder)) as service,
        States(service.database) as states,
    ):
        service.start_server()
        batch = states.batch(list(_lines()), age=95, name="release-2024 on the mirror")
        context = browser.new_context(
            viewport={"width": WIDTH, "height": 600},
            color_scheme="light",
            locale="en-GB",
            reduced_motion="reduce",  # a bar on its way would show less than its figures
            storage_state=listing(service.url, *_jobs(states), batch),
        )
        page = context.new_page()
        page.goto(service.url)
        expect(page.locator("#jobs li:empty")).to_have_count(0)
        page.locator("h1").click()  # out of the field
        page.screenshot(path=folder / "page.png", full_page=True)
        page.goto(service.url + batch)
        page.set_viewport_size({"width": WIDTH, "height": BATCH_HEIGHT})
        clip: Any = {"x": 0, "y": 0, "width": WIDTH, "height": BATCH_HEIGHT}
        page.screenshot(path=folder / "batch.png", clip=clip)
        context.close()


def _jobs(states: States) -> Iterator[str]:
    """Make a job of each kind."""
    half = {"bytes_done": 421 * MEGABYTE, "bytes_total": 658 * MEGABYTE}
    started = {"started_at": In(-19)}
    size = {"size": 48 * MEGABYTE}
    yield states.job(f"{SITE}debian-netinst.iso", **{**RUNNING, **half, **started})
    yield states.job(f"{SITE}photos-2024.zip", **{**DONE, **size})
    yield states.job(f"{SITE}missing.tar.gz", **FAILED)


def _lines() -> Iterator[tuple[NewLine, Mapping[str, Any]]]:
    """Return a list of which most lines match, one does not, and one is missing."""
    for number in range(1, 41):
        url = f"{SITE}release/part-{number:02}.tar.gz"
        found = f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC834 % 16**32:032x}"
        expected = MD5 if number == 5 else found
        outcome = FAILED if number == 3 else {**DONE, "md5": found, "size": number * MEGABYTE}
        yield line(number, url, expected={"md5": expected}), outcome


if __name__ == "__main__":
    with chromium() as browser:
        take_screenshots(browser, Path(sys.argv[1]))
