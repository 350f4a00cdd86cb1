"""The wire: one JSON object per line over a Unix socket. No sockets here, only what they carry.

The client begins with `{"hello": {"version": "0.1.0", "protocol": 1}}`; the daemon answers with a
hello of its own. Then come requests, `{"id": 7, "do": "submit", …}`, each answered by `{"id": 7,
"ok": {…}}` or `{"id": 7, "error": {"code": "never_fits", "message": "…"}}`. A subscription is
answered so once, and then by `{"id": 7, "more": {…}}` whenever there is news, until the client
closes the connection; what else it asks on that one waits behind it. Without an id the daemon says
`{"bye": "reason"}` before it leaves in an orderly way, with `"back": true` where another takes its
place at once.

The wire only ever gains fields: unknown ones are ignored on both sides, and none changes its
meaning. Bytes that are not UTF-8 travel as lone surrogates (PEP 383), escaped by JSON.

On the client's start-up path: plain dicts and json.
"""

from __future__ import annotations

from gpuq import wire_json
from gpuq.errors import BY_CODE, GpuqError, UsageError

PROTOCOL = 1
SCHEMA = 1  # of what --json prints

# What the process that empties a spool folder says by its exit code: there is more to be taken at
# once; there is something that is not ready yet, or that the daemon cannot take now.
SPOOL_MORE, SPOOL_LATER = 76, 75

HELLO_LIMIT = 4 * 1024
FRAME_LIMIT = 8 * 1024 * 1024

# Not taken over from the submitter's environment: what gpuq sets itself, what tells a job which
# GPUs it has, and what a shell changes between any two commands.
DROPPED_VARIABLES = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "NVIDIA_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL",
        "_",
        "OLDPWD",
        "PWD",
        "SHLVL",
    }
)
DROPPED_PREFIX = "GPUQ_"

# The soft limits that a job takes over from its submitter (getrlimit(2)).
LIMITS = (
    *("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE"),
    *("RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC"),
    *("RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_SIGPENDING", "RLIMIT_STACK"),
)

# In what a daemon answers to a request that is newer than it is.
UNKNOWN = "knows no request"

NO_ANSWER = (
    "the daemon said something that is no answer; it may be of another version: see gpuq --version "
    "and gpuq daemon status"
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]
else:
    Message = dict  # `typing` is not loaded for that


def encode(message: Message) -> bytes:
    return wire_json.dumps(message).encode("ascii") + b"\n"


class Shared(Message):
    """What is answered to many, and changed by nobody: encoded once."""

    _encoded: bytes | None = None

    def encoded(self) -> bytes:
        if self._encoded is None:
            self._encoded = wire_json.dumps(self).encode("ascii")
        return self._encoded


def answer(request_id: Any, ok: Message) -> bytes:
    if isinstance(ok, Shared):
        head = wire_json.dumps({"id": request_id})[:-1].encode("ascii")
        return b'%s,"ok":%s}\n' % (head, ok.encoded())
    return encode({"id": request_id, "ok": ok})


def decode(line: bytes) -> Message:
    """The message in a line; UsageError where it is none."""
    try:
        message = wire_json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not a line of JSON: {error}") from None
    if not isinstance(message, dict):
        raise UsageError("not a JSON object")
    return message


def hello(version: str, **more: Any) -> Message:
    return {"hello": {"version": version, "protocol": PROTOCOL, **more}}


def failure(request_id: Any, error: GpuqError) -> Message:
    return {"id": request_id, "error": {"code": error.code, "message": str(error)}}


def result_of(answer: Message) -> Message:
    """What a request came to; raised where it failed, or where that is no answer."""
    if "error" in answer:
        raise_failure(answer["error"])
    result = answer.get("ok", answer.get("more"))
    if not isinstance(result, dict):
        raise GpuqError(NO_ANSWER)
    return result


def raise_failure(error: Any) -> None:
    """Raises on this side what went wrong on the other."""
    if not isinstance(error, dict):
        raise GpuqError(NO_ANSWER)
    kind = BY_CODE.get(str(error.get("code", "")), GpuqError)
    raise kind(str(error.get("message") or "the daemon gave no reason"))


def is_dropped(name: str) -> bool:
    return name in DROPPED_VARIABLES or name.startswith(DROPPED_PREFIX)
