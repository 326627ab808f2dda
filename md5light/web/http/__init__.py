"""All that md5light knows of waitress: requests in, answers out, and bounds for both.

waitress reads and parses requests in one loop, and has threads answer them. Everything here that is
no part of its documented interface is named in tests/test_http.py.
"""
