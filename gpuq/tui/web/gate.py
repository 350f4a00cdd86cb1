"""Who is let in. Everybody with an account on this machine reaches 127.0.0.1, and so does each page in
one's own browser; so a visitor proves with every single request that the URL was given to them.

The token stands in the path and not in a cookie: a cookie for 127.0.0.1 goes to every port there, and
so to the servers of other users.
"""

import hmac
import secrets
from typing import NamedTuple

TOKEN_BYTES = 32
HOSTS = ("127.0.0.1", "localhost")  # any port: the end of a tunnel has its own


class Visitor(NamedTuple):
    """As the request says, all of it forged for all we know. `path` is still quoted."""

    path: str
    host: str | None
    origin: str | None
    method: str = "GET"


class Gate:
    """`token` is new for each server, and is nowhere but in this process and in the URL that it prints:
    the arguments of a process can be read by everybody, its environment by the same user's jobs."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token or secrets.token_urlsafe(TOKEN_BYTES)

    def lets_in(self, visitor: Visitor, *, is_websocket: bool = False) -> bool:
        return (
            visitor.method in (("GET",) if is_websocket else ("GET", "HEAD"))
            and self._knows_the_token(visitor.path)
            and _is_here(visitor.host)
            and _is_our_page(visitor, must_say=is_websocket)
        )

    def _knows_the_token(self, path: str) -> bool:
        """In constant time: no answer comes sooner for a better guess."""
        said = path.removeprefix("/").partition("/")[0]
        return hmac.compare_digest(said.encode("utf-8", "surrogateescape"), self.token.encode())


def _is_here(host: str | None) -> bool:
    """A name that somebody else's DNS turned to 127.0.0.1 is not (DNS rebinding)."""
    name, _, port = (host or "").partition(":")
    return name.lower() in HOSTS and (not port or (port.isascii() and port.isdigit()))


def _is_our_page(visitor: Visitor, *, must_say: bool) -> bool:
    """A browser names the page that opens a websocket, and websockets know no same-origin rule."""
    if visitor.origin is None:
        return not must_say
    return visitor.origin == f"http://{visitor.host}"
