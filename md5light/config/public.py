"""`[server] public`: other defaults for a service that strangers can reach."""

from __future__ import annotations

from urllib.parse import urlsplit

from md5light.config.keys import Config, ServerConfig
from md5light.config.values import UNIX, is_loopback

#: the source of these defaults, as it is shown
SOURCE = "[server] public = yes"

#: defaults of `public = yes`, by section and key, as they would be written in the file
DEFAULTS = {
    ("server", "submits_per_minute"): "30",
    ("server", "max_unfinished_per_client"): "1000",
    ("server", "max_batch_lines"): "10000",
    ("queue", "retention_days"): "90",
    ("worker", "per_host"): "4",
    ("download", "max_seconds"): "7200",
    ("download", "max_bytes"): "100000000000",
    ("download", "min_bytes_per_second"): "1000",
    ("download", "max_redirects"): "5",
    # without the bad ports of https://fetch.spec.whatwg.org/#port-blocking
    ("download", "allow_ports"): (
        "80 443 1024-1718 1721-1722 1724-2048 2050-3658 3660-4044 4046-4189 4191-5059 5062-5999 "
        "6001-6565 6567-6664 6670-6678 6680-6696 6698-10079 10081-65535"
    ),
    ("smtp", "per_recipient_per_hour"): "10",
}


def undecided(config: Config) -> str:
    """Return a warning if strangers may reach this service and `public` is not set, else ""."""
    if ("server", "public") in config.sources or not (reached := _reached_at(config.server)):
        return ""
    return (
        f"[server] {reached}, and public is not set: if strangers can reach this service, public = "
        "yes gives it limits that protect it and others; if they can't, public = no ends this line"
    )


def _reached_at(server: ServerConfig) -> str:
    """Return the setting that lets other machines reach the server; empty: none."""
    if server.base_url and not is_loopback(urlsplit(server.base_url).hostname or ""):
        return f"base_url = {server.base_url}"
    if not server.host.startswith(UNIX) and not is_loopback(server.host):
        return f"host = {server.host}"
    return ""
