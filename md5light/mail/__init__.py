"""From a result to a delivered mail; knows nothing of the queue."""
