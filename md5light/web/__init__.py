"""The HTTP API: what a request is, and what it is answered."""
