"""The HTTP server: waitress, with bounds for requests and answers; no other module uses it.

waitress reads and parses requests in one loop, and threads answer them. tests/test_http.py names
everything that this package uses beyond waitress' documented interface.
"""
