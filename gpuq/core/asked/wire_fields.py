"""Fields of a message, checked: each comes back as what it is to be, or UsageError names it.

Arguments, paths and environment are bytes to Linux. On the wire they are strings in which
surrogates stand for bytes that are not UTF-8 (PEP 383), so nothing is lost on the way.
"""

from collections.abc import Mapping
from typing import Any

from gpuq.errors import UsageError

# The kernel refuses a single string above 32 pages, with its closing NUL (execve(2), E2BIG).
LONGEST_STRING = 128 * 1024 - 1
LONGEST_NAME = 200


def to_bytes(field: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise UsageError(f"{field}: {value!r} is not text")
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UsageError(f"{field}: {value!r} holds half a character") from error
    if b"\0" in data:
        raise UsageError(f"{field}: a NUL byte cannot be passed to a program")
    if len(data) > LONGEST_STRING:
        raise UsageError(
            f"{field}: one string of {len(data)} bytes; Linux passes at most {LONGEST_STRING}"
        )
    return data


def to_text(data: bytes) -> str:
    """Bytes as they travel in JSON: nothing lost."""
    return data.decode("utf-8", "surrogateescape")


def join(parts: tuple[bytes, ...]) -> bytes:
    """Bytes strings as one blob, each closed by a NUL."""
    return b"".join(part + b"\0" for part in parts)


def split(blob: bytes) -> list[bytes]:
    return blob.split(b"\0")[:-1]


def read_text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_NAME:
        raise UsageError(
            f"{field}: {value!r} is not a printable text of up to {LONGEST_NAME} signs"
        )
    return value


def read_list(wire: Mapping[str, Any], field: str) -> list[Any]:
    value = wire.get(field, [])
    if not isinstance(value, list):
        raise UsageError(f"{field}: {value!r} is not a list")
    return value


def read_mapping(wire: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = wire.get(field) or {}
    if not isinstance(value, dict):
        raise UsageError(f"{field}: {value!r} is not a mapping")
    return value


def read_integer(wire: Mapping[str, Any], field: str, default: int, low: int, high: int) -> int:
    value = wire.get(field)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{field}: {value!r} is not a whole number from {low} to {high}")
    return value


def read_flag(wire: Mapping[str, Any], field: str) -> bool:
    value = wire.get(field)
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"{field}: {value!r} is neither true nor false")
    return bool(value)


def read_seconds(wire: Mapping[str, Any], field: str, default: float) -> float:
    value = wire.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10**9:
        raise UsageError(f"{field}: {value!r} is no length of time in seconds")
    return float(value)


def read_word(wire: Mapping[str, Any], field: str, words: tuple[str, ...]) -> str:
    value = wire.get(field) or words[0]
    if value not in words:
        raise UsageError(f"{field}: {value!r} is none of {', '.join(words)}")
    return str(value)


def read_path(wire: Mapping[str, Any], field: str) -> bytes:
    path = to_bytes(field, wire.get(field))
    if not path.startswith(b"/"):
        raise UsageError(f"{field}: {to_text(path)!r} is not an absolute path")
    return path
