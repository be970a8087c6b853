"""The service's refusals, each with its gRPC code and its HTTP status, worded as the service words them."""

from __future__ import annotations

import grpc


class Refused(Exception):
    """A call that is answered with an error: a client's fault, or something that is not here."""

    code = grpc.StatusCode.UNKNOWN
    http = 500


class InvalidArgument(Refused):
    """The request says what the service does not take."""

    code, http = grpc.StatusCode.INVALID_ARGUMENT, 400


class FailedPrecondition(Refused):
    """The resource is not in a state for this."""

    code, http = grpc.StatusCode.FAILED_PRECONDITION, 400


class PermissionDenied(Refused):
    """Whoever asks may not: a web page."""

    code, http = grpc.StatusCode.PERMISSION_DENIED, 403


class NotFound(Refused):
    """No resource of that name."""

    code, http = grpc.StatusCode.NOT_FOUND, 404


class AlreadyExists(Refused):
    """The name is taken."""

    code, http = grpc.StatusCode.ALREADY_EXISTS, 409


class Unimplemented(Refused):
    """The service has it, this server has not."""

    code, http = grpc.StatusCode.UNIMPLEMENTED, 501


class Unavailable(Refused):
    """Not now; a client tries again."""

    code, http = grpc.StatusCode.UNAVAILABLE, 503


def missing(name: str) -> NotFound:
    """No resource ``name``."""
    return NotFound(f"Resource not found (resource={name.rpartition('/')[2]}).")


def exists(name: str) -> AlreadyExists:
    """``name`` is taken."""
    return AlreadyExists(f"Resource already exists in the project (resource={name.rpartition('/')[2]}).")
