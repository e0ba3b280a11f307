"""PURE. OpenAI's error object, for the paths where its clients list models; https://platform.openai.com/docs/api-reference.

Knows that one shape; does not know requests: those paths have none.
Invariant: the code is ours, closed, and nothing of the path is in an error.
"""

import msgspec
from msgspec import Struct

from service.dialects.dialect import ErrorReply
from service.errors import Location, Reason, error_message


class Fault(Struct):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorObject(Struct):
    """A refused request."""

    error: Fault


def render_error(reason: Reason, loc: Location, request_id: str) -> ErrorReply:  # noqa: ARG001  OpenAI names it in a header
    """Write an error as OpenAI does."""
    kind = "server_error" if reason.status >= 500 else "invalid_request_error"
    return reason.status, msgspec.json.encode(
        ErrorObject(Fault(error_message(reason, loc), kind, param=None, code=reason.code))
    )
