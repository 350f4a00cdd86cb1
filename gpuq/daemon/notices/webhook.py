"""A webhook: one POST of JSON, with a key by which whoever gets it twice can tell. Standard library
only."""

import base64
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

MOST_REDIRECTS = 3
TIMEOUT_S = 30.0  # of one step of it
MOST_SAID = 1024  # bytes of an answer that says no
SAME_AGAIN = (301, 302, 307, 308)  # RFC 9110, 15.4; 303 is no place to post to


def post(address: str, body: bytes, key: str) -> str:
    """Returns the answer in words, "HTTP 204". Raises Refused, OSError, ValueError."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    request = Request(parts._replace(netloc=host, fragment="").geturl(), data=body, method="POST")
    request.add_header("Content-Type", "application/json")
    request.add_header("User-Agent", "gpuq")
    request.add_header("Idempotency-Key", key)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        word = base64.b64encode(pair.encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {word}")
    try:
        with build_opener(_Redirects).open(request, timeout=TIMEOUT_S) as answer:
            return f"HTTP {answer.status}"
    except HTTPError as error:
        raise Refused(error) from None
    except HTTPException as error:
        raise OSError(f"no answer in HTTP: {type(error).__name__}") from None


class Refused(Exception):
    """An answer that is not 2xx: `said` is what came with it."""

    def __init__(self, error: HTTPError) -> None:
        super().__init__(f"HTTP {error.code} {error.reason}".rstrip())
        try:
            self.said = error.read(MOST_SAID).decode("utf-8", "replace")
        except (OSError, HTTPException):
            self.said = ""


class _Redirects(HTTPRedirectHandler):
    """The same is posted there; urllib itself would make it a GET, whose good answer says nothing."""

    max_redirections = MOST_REDIRECTS

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Any:
        as_safe = "https:" if req.type == "https" else "http"
        if code not in SAME_AGAIN or not newurl.lower().startswith(as_safe):
            return None
        again = Request(newurl, data=req.data, method="POST")
        for name, value in req.headers.items():
            again.add_header(name, value)
        return again
