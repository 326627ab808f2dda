"""Administration: what `md5light` does besides parsing its arguments."""

from __future__ import annotations

import argparse

from md5light import config as configuration
from md5light.config import Config


def config_check(config: Config, arguments: argparse.Namespace) -> bool:  # noqa: ARG001 - read without an error
    """Say that the configuration is right; what is wrong was said when it was read."""
    print(f"{configuration.find(arguments.config) or 'the defaults'}: ok")
    return True


def config_show(config: Config, arguments: argparse.Namespace) -> bool:  # noqa: ARG001 - takes no more
    """Print the configuration as an INI file, with secrets masked."""
    print(configuration.show(config))
    return True
