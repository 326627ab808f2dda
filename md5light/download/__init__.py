"""From a URL to an MD5; knows nothing of the queue."""
