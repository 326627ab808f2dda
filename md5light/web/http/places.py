"""Places: the limit of large lists and manifests at once."""

from __future__ import annotations

import time
from typing import Any

from md5light.web.http.channel import Channel
from md5light.web.http.parser import Parser

#: lists larger than MEMORY_BYTES that are sent to us or read at once, and manifests that are
#: written or sent at once: each takes a descriptor and room on the disk
MAX_LISTS, MAX_MANIFESTS = 16, 48


class Places:
    """Counts the channels of a loop that use a place.

    A client that has been silent for `silence_seconds` gives its place to another.
    """

    def __init__(self, loop: dict[int, Any], silence_seconds: float) -> None:
        self._loop = loop
        self._silence_seconds = silence_seconds

    def have(self, request: Parser) -> bool:
        """Tell whether there is a place for `request`, which is counted, too."""
        channels = [entry for entry in list(self._loop.values()) if isinstance(entry, Channel)]
        if request.has_large_list:
            same = [channel for channel in channels if channel.takes_list]
            return len(same) <= MAX_LISTS or self._close_silent(same)
        if request.wants_manifest:
            same = [channel for channel in channels if channel.sends_manifest]
            return len(same) <= MAX_MANIFESTS or self._close_silent(same)
        return True

    def _close_silent(self, channels: list[Channel]) -> bool:
        """Close the channel that has waited longest for its client; False if none waits."""
        waiting = [channel for channel in channels if not channel.requests]
        silent = min(waiting, key=lambda channel: channel.last_activity, default=None)
        if silent is None or time.time() - silent.last_activity < self._silence_seconds:
            return False
        silent.handle_close()
        return True
