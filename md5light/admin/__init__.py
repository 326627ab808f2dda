"""The administration: each command of `md5light` is a function of its name.

A command's module is imported when it is asked for (PEP 562): together they import nearly all of
md5light, which takes several times as long as most commands.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: modules by the first word of their commands
_MODULES = {
    "batches": "batches",
    "config": "check",
    "hosts": "hosts",
    "jobs": "jobs",
    "mail": "mails",
    "queue": "database",
    "stats": "database",
    "token": "tokens",
}


def __getattr__(command: str) -> Any:
    module = _MODULES.get(command.partition("_")[0])
    if module is None:
        raise AttributeError(command)
    return getattr(import_module(f"{__name__}.{module}"), command)
