"""The MD5 of a file on the Internet, without downloading it yourself or waiting for it."""

__version__ = "0.1.0"
