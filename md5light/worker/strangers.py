"""The failures that a public service reports, and its number of attempts.

A code for each way in which a port does not answer would make the service a port scanner, and one
for names that exist in a private network alone would list these. The log has the true reason.
"""

from __future__ import annotations

from md5light.errors import Failure, PermanentFailure, TemporaryFailure

NO_NAME = "The host's name could not be found, or leads to no address that is open to downloads."

NO_ANSWER = "The server could not be reached, or did not answer as a web server does."

#: codes that reveal what a name server knows
OF_NAMES = ("name_not_found", "address_not_allowed")

#: codes that reveal, before any answer, what listens on a port
OF_PORTS = ("connection_failed", "timed_out", "bad_response", "tls_failed")


def told(failure: Failure) -> Failure:
    """Return the failure that is stored in place of `failure`, which stays as it is in the log.

    A download that timed out is tried once more: else a server that drips would keep a slot for
    hours, at each of many attempts.
    """
    code, message = _disguise(failure)
    if message != failure.message and isinstance(failure, PermanentFailure):
        # Tried again as the others of this code are: the number of attempts would tell.
        failure = TemporaryFailure(failure.code, failure.message)
    failure.disguise(code, message)
    # A host that rests, or does not, would tell what listens there as well.
    failure.of_host = failure.of_host or message == NO_ANSWER
    failure.last_chance = failure.code == "timed_out"
    return failure


def _disguise(failure: Failure) -> tuple[str, str]:
    is_certificate = failure.code == "tls_failed" and isinstance(failure, PermanentFailure)
    if failure.code in OF_NAMES:
        return "name_not_found", NO_NAME
    if failure.unanswered and failure.code in OF_PORTS and not is_certificate:
        return "connection_failed", NO_ANSWER
    return failure.code, failure.message
