"""What a process imports before commands are forked from it; see tests/forked.py."""

import gc

import psycopg  # noqa: F401

import md5light.client
import md5light.pool
import md5light.server  # noqa: F401

gc.freeze()  # else each collection in a forked process would copy the memory of all modules
