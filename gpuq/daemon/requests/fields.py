"""Fields of a request, checked: what comes from outside has any type until it has been looked at."""

import hashlib
from collections.abc import Mapping
from typing import Any

from gpuq.core.model import JobState, Outcome, Substate
from gpuq.core.units import quoted
from gpuq.errors import UsageError

PAGE = 500  # jobs or events in one answer
LONGEST_WAIT_S = 60.0
LONGEST_REASON = 200
LONGEST_NAME = 200  # as a job's may be, and a pattern for it
LARGEST_ID = 2**62  # what lies behind it still fits into the database
STATE_WORDS = (*JobState, *Substate, *Outcome)


def token(request: Mapping[str, Any]) -> str | None:
    token = request.get("token")
    if token is None:
        return None
    if not isinstance(token, str) or not 0 < len(token) <= 64 or not token.isascii():
        raise UsageError("token: up to 64 ASCII signs are wanted")
    return token


def environment(request: Mapping[str, Any], digest: bytes) -> bytes | None:
    """The environment that came with a submit, held against its hash; None where none came."""
    variables = request.get("environment")
    if variables is None:
        return None
    if not isinstance(variables, list) or not all(isinstance(v, str) for v in variables):
        raise UsageError("environment: a list of NAME=value is wanted")
    try:
        content = "".join(f"{v}\0" for v in variables).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError("environment: holds half a character") from None
    if hashlib.sha256(content).digest() != digest:
        raise UsageError("environment: it does not have the hash that came with it")
    longest = max((len(v) for v in variables), default=0)
    if longest > 128 * 1024 - 1:
        name = next(v for v in variables if len(v) == longest).split("=")[0]
        raise UsageError(
            f"environment: {name} has {longest} characters; Linux passes at most 131071. "
            f"Unset it: env -u {name} gpuq …"
        )
    return content


def timeout_s(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise UsageError(f"timeout_s: {quoted(value)} is no length of time in seconds")
    return float(min(value, LONGEST_WAIT_S))


def named(request: Mapping[str, Any]) -> list[Any]:
    """A text would be taken for a list of its signs: "12" for jobs 1 and 2."""
    refs = request.get("refs") or []
    if not isinstance(refs, list):
        raise UsageError(f"refs: {quoted(refs)} is not a list")
    return refs


def pid(request: Mapping[str, Any]) -> int:
    value = request.get("pid")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise UsageError(f"pid: {quoted(value)} is not the number of a process")
    return value


def reason(request: Mapping[str, Any]) -> str:
    """Why somebody did it, for those who find it so."""
    value = request.get("reason") or "no reason was given"
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_REASON:
        raise UsageError(f"reason: a printable text of up to {LONGEST_REASON} signs is wanted")
    return value


def limit(value: Any) -> int:
    return min(value, PAGE) if isinstance(value, int) and value > 0 else PAGE


def cursor(request: Mapping[str, Any], field: str) -> int | None:
    value = request.get(field)
    if value is not None and (not isinstance(value, int) or abs(value) > LARGEST_ID):
        raise UsageError(f"{field}: {quoted(value)} is not a whole number that can be one")
    return value


def filters(request: Mapping[str, Any]) -> dict[str, Any]:
    aliases = {"oom": "out_of_memory", "timeout": "timed_out"}
    states = request.get("states") or []
    if not isinstance(states, list):
        raise UsageError(f"states: {quoted(states)} is not a list")
    states = [aliases.get(str(state), str(state)) for state in states]
    if unknown := [state for state in states if state not in STATE_WORDS]:
        raise UsageError(f"{quoted(unknown[0])} is no state: {', '.join(STATE_WORDS)}")
    texts = {field: _text(request, field) for field in ("user", "tag", "name", "queue")}
    return {"states": states, "since": moment(request, "since")} | texts


def prunable(request: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Which of the jobs that have ended are meant: by how, how long ago, and all but the newest."""
    aliases = {"oom": "out_of_memory", "timeout": "timed_out"}
    states = request.get("states") or []
    if not isinstance(states, list):
        raise UsageError(f"states: {quoted(states)} is not a list")
    words = [aliases.get(str(state), str(state)) for state in states]
    if other := [word for word in words if word not in (*Outcome, JobState.ENDED)]:
        ends = ", ".join(Outcome)
        raise UsageError(
            f"only jobs that have ended can be pruned: {quoted(other[0])} is none of {ends}"
        )
    age_s, keep = request.get("older_than_s"), request.get("keep") or 0
    is_age = isinstance(age_s, int | float) and not isinstance(age_s, bool) and abs(age_s) < 1e12
    if age_s is not None and not is_age:
        raise UsageError(f"older_than_s: {quoted(age_s)} is no length of time in seconds")
    if isinstance(keep, bool) or not isinstance(keep, int) or not 0 <= keep < 2**62:
        raise UsageError(f"keep: {quoted(keep)} is no number of jobs")
    return {
        "outcomes": [] if JobState.ENDED in words else words,
        "ended_before": None if age_s is None else now - age_s,
        "keep": keep,
    }


def moment(request: Mapping[str, Any], field: str) -> float | None:
    """Seconds since 1970."""
    value = request.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise UsageError(f"{field}: {quoted(value)} is no time in seconds since 1970")
    return float(value)


def _text(request: Mapping[str, Any], field: str) -> str | None:
    value = request.get(field)
    if value is None:
        return None
    return text(field, value)


def text(field: str, value: Any) -> str:
    """That can be compared with names as they are stored: valid Unicode, and no longer than those."""
    try:
        if isinstance(value, str) and len(value) <= LONGEST_NAME:
            value.encode()
            return value
    except UnicodeEncodeError:
        pass
    raise UsageError(f"{field}: {quoted(value)} is not a text of up to {LONGEST_NAME} signs")
