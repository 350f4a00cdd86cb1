"""What a submit takes over from the process that makes it: directory, umask, limits, environment.

On the start-up path of `submit` and `run`: standard library only.
"""

from __future__ import annotations

import os
import resource
import sys

from gpuq import protocol
from gpuq.errors import GpuqError, UsageError
from gpuq.work_tree.commit import commit_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Job = dict[str, Any]


class Environment:
    """The variables that jobs take over, and their hash."""

    def __init__(self) -> None:
        self.variables = environment()
        self.digest = digest(self.variables)


def environment_now() -> Environment:
    """The same as before where nobody has set a variable since then: to read and hash them all takes
    as long as the rest of a submit."""
    global _last
    # Where Python keeps them, as bytes; None where it should do so elsewhere one day.
    held = getattr(os.environ, "_data", None)
    if held is None:
        return Environment()
    known = _last
    if known is None or known[0] != held:
        known = _last = dict(held), Environment()
    return known[1]


_last: tuple[dict[Any, Any], Environment] | None = None


def environment() -> list[str]:
    """NAME=value as text, sorted, so that equal environments have equal hashes.

    A job's own temporary directory ends with that job, so a job that it submits gets none of it.
    """
    dropped = {"TMPDIR"} if "GPUQ_JOB_ID" in os.environ else set()
    return sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if not protocol.is_dropped(name) and name not in dropped
    )


def digest(variables: list[str]) -> str:
    joined = "".join(variable + "\0" for variable in variables)
    hashed: str = _sha256()(joined.encode("utf-8", "surrogateescape")).hexdigest()
    return hashed


def _sha256() -> Any:
    """Python's own: hashlib would load OpenSSL, which takes longer than all that is asked of it here.
    Who builds Python without its own has that of hashlib."""
    try:
        return __import__("_sha2" if sys.version_info >= (3, 12) else "_sha256").sha256
    except ImportError:
        from hashlib import sha256

        return sha256


# What `Client.submit` takes: the wire ignores what it does not know, a caller should hear of it.
OPTIONS = frozenset(
    (
        *("argv", "gpus", "gpu_mem_bytes", "exclusive", "gpu_model", "cpus", "name", "priority"),
        *(
            "cwd",
            "env",
            "grace_s",
            "tags",
            "output",
            "stderr",
            "visible",
            "seed",
            "umask",
            "limits",
        ),
        *("time_limit_s", "heartbeat_s", "stop_to", "retries", "backoff", "retry_on", "key"),
        *("cpu_after_s", "on_kill"),
        *("max_util", "gpu_ids", "exclude_gpus", "gpu_mem", "mem_bytes", "queue", "snapshot"),
        *("after", "begin_at", "begin_in_s", "preemptible", "preempt_signal", "on_failure"),
        *("held", "array", "grid", "params", "script", "interpreter", "as_slurm"),
        *("on_start", "on_end"),
    )
)


class Process:
    """What this process would have given to a child, looked up once for jobs that go together."""

    def __init__(self) -> None:
        self.umask = _umask()
        self.limits = _soft_limits()
        self._commits: dict[str, str | None] = {}

    def commit(self, directory: str) -> str | None:
        if directory not in self._commits:
            self._commits[directory] = commit_of(directory)
        return self._commits[directory]


def spec(options: Job, process: Process | None = None) -> Job:
    """A job as it goes over the wire."""
    process = process or Process()
    if not OPTIONS.issuperset(options):
        raise UsageError(_unknown(min(options.keys() - OPTIONS)))
    spec = {name: value for name, value in options.items() if value is not None}
    spec["argv"] = words(spec)
    spec["cwd"] = os.path.abspath(spec.get("cwd") or _working_directory())
    for field in ("output", "stderr"):
        if field in spec:
            # A sign like %j stands for something in the name of the file alone.
            spec[field] = os.path.join(spec["cwd"].replace("%", "%%"), spec[field])
    spec["changes"] = spec.pop("env", {})
    if not _OF_MANY.isdisjoint(spec):
        _make_array(spec)
    if "script" in spec and "interpreter" not in spec:
        spec["interpreter"] = _interpreter(spec["script"])
    if (commit := process.commit(spec["cwd"])) is not None:
        spec["commit_id"] = commit
    spec.setdefault("umask", process.umask)
    spec.setdefault("limits", process.limits)
    spec.setdefault("seed", int.from_bytes(os.urandom(4), "little"))
    return spec


def words(job: Job) -> list[str]:
    """Those of its command."""
    argv = job.get("argv")
    if isinstance(argv, str | bytes):
        raise UsageError(
            f"argv is a list of words, not one text: write {argv.split()!r}, "
            "or ['sh', '-c', text] for what a shell is to read"
        )
    if not isinstance(argv, list | tuple):
        raise UsageError(f"argv is a list of words, not {argv!r}")
    return [_word(word) for word in argv]


def _word(word: Any) -> Any:
    try:
        return os.fspath(word)
    except TypeError:
        raise UsageError(f"argv: {word!r} is no text: write {str(word)!r}") from None


_OF_MANY = frozenset(("array", "grid", "params"))


def _make_array(spec: Job) -> None:
    """From what `array`, `grid` and `params` say to the elements of an array."""
    from gpuq.core.asked.arrays import rows_of, to_wire

    array, grid, rows = (spec.pop(name, None) for name in ("array", "grid", "params"))
    if isinstance(array, dict):  # they have been made already
        spec["array"] = array
        return
    _check_shapes(array, grid, rows)
    try:
        values = {name: list(map(str, values)) for name, values in (grid or {}).items()}
        made = to_wire(array, values, None if rows is None else rows_of(rows))
    except ValueError as error:
        raise UsageError(str(error)) from None
    if made is not None:
        spec["array"] = made


def _check_shapes(array: Any, grid: Any, rows: Any) -> None:
    if array is not None and not isinstance(array, str):
        raise UsageError(f"array: {array!r} is no text like '0-99%4'")
    if grid is not None and not hasattr(grid, "items"):
        raise UsageError(f"grid: {grid!r} is no mapping like {{'lr': [0.1, 0.01]}}")
    for name, values in (grid or {}).items():
        if not isinstance(name, str):
            raise UsageError(f"grid: the name {name!r} is no text")
        if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
            raise UsageError(f"grid: {name} has a list of values: {{{name!r}: [{values!r}]}}")
    if rows is None:
        return
    if not isinstance(rows, list | tuple):
        raise UsageError(f"params: {rows!r} is no list like [{{'lr': 0.1}}, {{'lr': 0.01}}]")
    if other := [row for row in rows if not hasattr(row, "items")]:
        raise UsageError(f"params: {other[0]!r} is no mapping like {{'lr': 0.1}}")


def _interpreter(script: str) -> list[str]:
    from gpuq.core.asked.scripts import interpreter_of

    try:
        return interpreter_of(script)
    except ValueError as error:
        raise UsageError(f"script: {error}") from None


def _unknown(option: str) -> str:
    from difflib import get_close_matches

    begun = sorted(name for name in OPTIONS if name.startswith(option))  # grace, without its unit
    near = (begun if len(begun) == 1 else []) or get_close_matches(option, OPTIONS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(OPTIONS))}"
    return f"submit has no option {option!r}; {hint}"


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise GpuqError("this directory no longer exists: change to one that does") from None


def _umask() -> int:
    try:
        status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            words = os.read(status, 4096).partition(b"\nUmask:")[2].split(None, 1)
        finally:
            os.close(status)
        if words:
            return int(words[0], 8)
    except OSError:
        pass
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _soft_limits() -> dict[str, int]:
    return {name: resource.getrlimit(number)[0] for name, number in _LIMITS}


_LIMITS = [(name, getattr(resource, name)) for name in protocol.LIMITS if hasattr(resource, name)]
