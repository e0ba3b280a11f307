"""Every way in which the service refuses a request, with its status and its one sentence.

Knows codes, statuses and fixed texts; does not know requests.
Invariant: nothing that a client sent is in a message; `loc` holds field names that we know, and indices, and a key that
we do not know in one place: where a setting has unknown keys refused.

    Exception
    ├── Refused        a request was refused; `reason` names a row of the table below
    ├── ClientDisconnected the client hung up, so there is nobody to answer
    ├── EngineError    the runtime cannot serve this bundle as asked; stops the boot
    ├── CatalogueError the catalogue of products cannot be opened; stops the boot
    └── KeyFileError   the file of API keys makes no sense; stops the boot, later it is left aside
"""

from enum import Enum

Location = tuple[str | int, ...]
"""Where in a body a fault is: names of fields and indices."""


class Reason(Enum):
    """Closed code, HTTP status, and what to say."""

    MALFORMED_JSON = "malformed_json", 400, "The body is not valid JSON in UTF-8."
    MALFORMED_GZIP = (
        "malformed_gzip",
        400,
        "The body is not the one gzip member that its content encoding says.",
    )
    MALFORMED_HTTP = (
        "malformed_http",
        400,
        "This is no valid HTTP request, or has not exactly one Host header.",
    )
    UNAUTHENTICATED = "unauthenticated", 401, "A valid API key is needed: Authorization: Bearer KEY."
    ADMIN_LOCKED = (
        "admin_locked",
        403,
        "Admin calls are answered on loopback, or with a valid SHELFRANK_ADMIN_KEY; never to a web page.",
    )
    NOT_FOUND = "not_found", 404, "There is nothing at this path."
    MODEL_NOT_FOUND = (
        "model_not_found",
        404,
        "This model is not served here; leave model out or see GET /v1/models.",
    )
    NO_CANDIDATE = "no_newcomer", 404, "There is no model in this role."
    PRODUCT_NOT_FOUND = "product_not_found", 404, "There is no product of this id in the catalogue."
    CATALOGUE_OFF = "catalogue_off", 404, "This server keeps no catalogue of products."
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "This path does not take this method."
    REQUEST_TIMEOUT = "request_timeout", 408, "The request did not arrive in time."
    LOADING = "loading", 409, "Another bundle is being loaded; try again when that is done."
    BODY_TOO_LARGE = "body_too_large", 413, "The body is larger than this server accepts."
    UNSUPPORTED_MEDIA_TYPE = (
        "unsupported_media_type",
        415,
        "The content type has to be application/json in UTF-8, the content encoding gzip or none.",
    )
    INVALID_FIELD = "invalid_field", 422, "A field is missing, or has the wrong type or range."
    UNKNOWN_FIELD = "unknown_field", 422, "The request has a field that this API does not know."
    MISSING_DOCUMENTS = "missing_documents", 422, "One of documents, texts and products has to be given."
    AMBIGUOUS_DOCUMENTS = (
        "ambiguous_documents",
        422,
        "Only one of documents, texts and products may be given.",
    )
    BLANK_QUERY = "blank_query", 422, "The query is blank."
    EMPTY_DOCUMENT = "empty_document", 422, "A document has none of the text fields."
    TEXT_TOO_LONG = "text_too_long", 422, "A text is longer than this server accepts."
    TOO_MANY_DOCUMENTS = "too_many_documents", 422, "There are more documents than this server accepts."
    UNPAIRED_TEXTS = (
        "unpaired_texts",
        422,
        "Queries and documents do not pair up: one to many, or as many of both, are needed.",
    )
    UNSUPPORTED_OPTION = "unsupported_option", 422, "An option asks for what this server cannot give."
    OVERLOADED = "overloaded", 429, "There is more to do than time for it; try again later."
    HEADERS_TOO_LARGE = "headers_too_large", 431, "The headers are larger than this server accepts."
    INTERNAL = "internal", 500, "The server failed; its log has the request id."
    UNKNOWN_TRANSFER_CODING = (
        "unknown_transfer_coding",
        501,
        "The only transfer coding that this server knows is chunked.",
    )
    UNSCORED = "unscored", 503, "A text could not be scored, and the answer was not to come without it."
    NOT_READY = "not_ready", 503, "The server is starting, draining or broken."
    CATALOGUE_FAILED = (
        "catalogue_failed",
        503,
        "The catalogue cannot be read or written now; the server's log says why.",
    )
    DEADLINE = "deadline", 504, "Not all documents could be scored within the budget."
    CATALOGUE_FULL = "catalogue_full", 507, "The catalogue is full; delete products or have it made larger."

    def __init__(self, code: str, status: int, message: str) -> None:
        self.code = code
        self.status = status
        self.message = message


class Refused(Exception):
    """A request that is not served; `loc` says where in the body the fault is."""

    def __init__(self, reason: Reason, loc: Location = ()) -> None:
        super().__init__(reason.code)
        self.reason = reason
        self.loc = loc


def error_message(reason: Reason, loc: Location) -> str:
    """Return a reason's message, and where in the request the fault is."""
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return f"{reason.message} (at {place.lstrip('.')})" if place else reason.message


class ClientDisconnected(Exception):
    """The client hung up before it was answered."""


class EngineError(Exception):
    """The runtime cannot serve this bundle as the settings ask."""


class CatalogueError(Exception):
    """The catalogue cannot be opened: not ours, damaged, of another format, or not ours to write."""


class KeyFileError(Exception):
    """The file of API keys cannot be read or makes no sense; the message holds nothing of it."""
