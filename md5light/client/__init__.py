"""The client: the verbs of `md5light`, each a function of its name; they speak HTTP to a server."""

from md5light.client.verbs import cancel, manifest, retry, status, submit, verify, wait

__all__ = ["cancel", "manifest", "retry", "status", "submit", "verify", "wait"]
