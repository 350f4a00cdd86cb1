"""JSON as the `json` module writes and reads it, without loading that: its C parts do the work, and for
the rest of it Python would load its regular expressions, which takes as long as all else in a submit.

What the C parts do not take is left to `json`, which says what is wrong with it; and so is all of it on
a Python that has them not, or otherwise. On the client's start-up path: nothing but those.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def dumps(value: Any) -> str:
    """In ASCII, with no space between its parts."""
    if _write is not None:
        try:
            return _write(value)
        except (TypeError, ValueError, RecursionError):
            pass  # said by `json`
    import json

    return json.dumps(value, separators=(",", ":"))


def loads(data: bytes) -> Any:
    """ValueError, or RecursionError, where it is no JSON, or has a number that JSON does not know."""
    if _read is not None:
        try:
            text = data.decode()
            value, end = _read(text, 0)
            if end == len(text):
                return value
        except (ValueError, StopIteration, RecursionError):
            pass  # said by `json`
    import json

    return json.loads(data, parse_constant=_refuse_constant)


def _refuse_constant(word: str) -> None:
    """NaN is no JSON, and as a length of time it would never pass."""
    raise ValueError(f"{word} is no number")


class _Strictly:
    """What the scanner asks of the `json.JSONDecoder` that it works for."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)


def _refuse(value: Any) -> None:
    raise TypeError(value)


def _writer() -> Callable[[Any], str] | None:
    try:
        from _json import encode_basestring_ascii, make_encoder

        def write(value: Any) -> str:
            encode = make_encoder(
                {}, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True
            )
            return "".join(encode(value, 0))

        return write if write({"a": [1, None]}) == '{"a":[1,null]}' else None
    except (ImportError, TypeError):
        return None


def _reader() -> Callable[[str, int], tuple[Any, int]] | None:
    try:
        from _json import make_scanner

        strictly: Any = _Strictly
        read: Callable[[str, int], tuple[Any, int]] = make_scanner(strictly)
        return read if read('{"a":[1]}', 0) == ({"a": [1]}, 9) else None
    except (ImportError, TypeError, AttributeError):
        return None


_write, _read = _writer(), _reader()
