"""The configuration: its keys, the types of their values, and their sources."""

from md5light.config.keys import (
    SECTIONS,
    Config,
    DownloadConfig,
    LogConfig,
    QueueConfig,
    ServerConfig,
    SmtpConfig,
    WorkerConfig,
    description,
)
from md5light.config.public import undecided
from md5light.config.reading import DEFAULT_FILE, find, load
from md5light.config.showing import MASK, masked, show, shown
from md5light.config.values import Network, Ports, http_url, is_loopback

__all__ = [
    "DEFAULT_FILE",
    "MASK",
    "SECTIONS",
    "Config",
    "DownloadConfig",
    "LogConfig",
    "Network",
    "Ports",
    "QueueConfig",
    "ServerConfig",
    "SmtpConfig",
    "WorkerConfig",
    "description",
    "find",
    "http_url",
    "is_loopback",
    "load",
    "masked",
    "show",
    "shown",
    "undecided",
]
