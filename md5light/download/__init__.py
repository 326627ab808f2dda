"""Downloads a URL as a stream and computes its digests; does not import the queue."""
