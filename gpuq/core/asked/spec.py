"""What one submission asks to run, read from the wire and checked, before anything is stored."""

import re
import signal as signals
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import hexdigits
from typing import Any

from gpuq.core.asked.commands import Command, read_argv, read_name
from gpuq.core.asked.elements import Elements
from gpuq.core.asked.hooks import read_hook
from gpuq.core.asked.moments import read_begin
from gpuq.core.asked.needs import Need
from gpuq.core.asked.spec_array import check_files, read_array, read_script
from gpuq.core.asked.wire_fields import (
    read_flag,
    read_integer,
    read_list,
    read_mapping,
    read_path,
    read_seconds,
    read_text,
    read_word,
    to_bytes,
)
from gpuq.core.ends.bounds import Bounds
from gpuq.core.ends.retry import parse_backoff, parse_retry_on
from gpuq.core.gpus.fitting import find_gpus
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Request
from gpuq.core.results.giving_up import parse_on_failure
from gpuq.errors import UsageError

SHORTEST_LIMIT_S = 0.1
MOST_RETRIES = 1000
MOST_TAGS = 100  # each is looked at whenever a limit of tags is
SNAPSHOT_NAME = re.compile("[0-9a-f]{32}(-[0-9]{1,6})?")
LEAST_MEMORY = 2**20  # of less no program gets as far as to say so


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One thing to run, as asked. `limits` are soft limits by name; `changes` are set over the
    environment whose hash is `environment`."""

    argv: tuple[bytes, ...]
    cwd: bytes
    umask: int
    environment: bytes
    request: Request
    name: str
    limits: Mapping[str, int]
    changes: Mapping[bytes, bytes]
    visible: str = "auto"
    grace_s: float = 10.0
    stop_to: str = "all"  # who gets the TERM: the main process, or all of the job
    time_limit_s: float | None = None
    heartbeat_s: float | None = None
    on_kill: bytes | None = None  # for a shell, when gpuq ends the job
    retries: int = 0
    backoff: str | None = None
    retry_on: str | None = None
    key: str | None = None
    priority: int = 0
    seed: int = 0
    output: bytes | None = None
    stderr: bytes | None = None
    on_start: str | None = None  # what is done when it starts: a command or an address
    on_end: str | None = None
    tags: tuple[str, ...] = ()
    gpu_mem_auto: bool = False  # as much of a GPU as its command used before
    gpu_mem_from: str | None = None  # what came of that, in words
    bounds: Bounds = field(default_factory=Bounds)  # on what it uses of the machine
    queue: str = ""
    held: bool = False  # until somebody releases it
    begin_at: float | None = None  # not before that moment of the wall clock, s since the epoch
    begin_in_s: float | None = None  # or not before so much time has passed
    needs: tuple[Need, ...] = ()
    elements: Elements | None = None  # of an array
    rows: tuple[tuple[str, ...], ...] = ()  # for each element the values of `elements.columns`
    max_running: int | None = None  # of its elements at a time
    stop_after: int | None = None  # so many failures end its group; 0: none do; None: the usual
    preemptible: bool = False
    preempt_signal: int | None = None  # None: the usual
    script: bytes | None = None  # what runs in place of argv[0], by its `interpreter`
    interpreter: tuple[bytes, ...] = ()
    as_slurm: bool = False  # with SLURM_… in its environment
    commit_id: str | None = None  # of the git work tree that it was submitted in
    snapshot: str | None = None  # the copy of that tree that it runs in
    times: int = 1  # that it is queued: as separate jobs, each with a seed of its own
    commands: tuple[Command, ...] = ()  # of further jobs, which have a seed of their own too

    @property
    def count(self) -> int:
        """How many jobs it is."""
        return self.times + len(self.commands) if self.elements is None else len(self.elements)


def read_spec(
    wire: Mapping[str, Any], *, default_gpus: int, grace_s: float, machine: Sequence[Gpu] = ()
) -> Spec:
    """The Spec in a submit message; UsageError names the field and what is wrong with it. What is
    submitted from one shell differs mostly in its command and its seed: the rest is read once."""
    asked = _rest(wire), default_gpus, grace_s
    known = _KNOWN.get(asked)
    if known is not None:
        argv = read_argv(wire)
        return replace(known, argv=argv, name=read_name(wire, argv), seed=_seed(wire))
    spec = _read_spec(wire, default_gpus, grace_s, machine)
    if asked[0]:
        if len(_KNOWN) >= MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[asked] = spec
    return spec


_KNOWN: dict[tuple[str, int, float], Spec] = {}
MOST_KNOWN, LONGEST_KNOWN = 64, 4000
_OWN = frozenset(("argv", "name", "seed", "argvs", "times", "after"))
# What is long, or means something else on another machine.
_NEVER_KEPT = frozenset(("array", "script", "gpu_ids", "exclude_gpus"))


def _rest(wire: Mapping[str, Any]) -> str:
    """What is asked but for what is each job's own, in words, in which 1 is not true, as it is where
    they are compared. "": it is to be read anew each time."""
    if not _NEVER_KEPT.isdisjoint(wire):
        return ""
    try:
        words = repr({name: value for name, value in wire.items() if name not in _OWN})
    except RecursionError:  # nothing that we read is so deep
        return ""
    return words if len(words) <= LONGEST_KNOWN else ""


def _read_spec(
    wire: Mapping[str, Any], default_gpus: int, grace_s: float, machine: Sequence[Gpu]
) -> Spec:
    argv = read_argv(wire)
    begin_at, begin_in_s = read_begin(wire)
    many, script = read_array(wire), read_script(wire)
    spec = Spec(
        argv=argv,
        cwd=read_path(wire, "cwd"),
        umask=read_integer(wire, "umask", 0o022, 0, 0o777),
        environment=_hash(wire),
        request=read_request(wire, default_gpus, machine),
        name=read_name(wire, argv),
        limits=_limits(wire),
        changes=_changes(wire),
        visible=read_word(wire, "visible", ("auto", "uuid", "index")),
        grace_s=read_seconds(wire, "grace_s", grace_s),
        stop_to=read_word(wire, "stop_to", ("all", "main")),
        time_limit_s=_limit(wire, "time_limit_s"),
        heartbeat_s=_limit(wire, "heartbeat_s"),
        on_kill=_on_kill(wire),
        retries=read_integer(wire, "retries", 0, 0, MOST_RETRIES),
        backoff=_rule(wire, "backoff", parse_backoff),
        retry_on=_rule(wire, "retry_on", parse_retry_on),
        key=None if wire.get("key") is None else read_text(wire["key"], "key"),
        priority=read_integer(wire, "priority", 0, -1_000_000, 1_000_000),
        seed=_seed(wire),
        output=read_path(wire, "output") if wire.get("output") is not None else None,
        stderr=read_path(wire, "stderr") if wire.get("stderr") is not None else None,
        on_start=_hook(wire, "on_start"),
        on_end=_hook(wire, "on_end"),
        tags=_tags(wire),
        gpu_mem_auto=_wants_learned_memory(wire),
        bounds=_bounds(wire),
        queue=read_text(wire.get("queue") or "", "queue"),
        held=read_flag(wire, "held"),
        elements=many.elements,
        rows=many.rows,
        max_running=many.max_running,
        stop_after=_stop_after(wire),
        script=script.text,
        interpreter=script.interpreter,
        as_slurm=script.as_slurm,
        begin_at=begin_at,
        begin_in_s=begin_in_s,
        preemptible=_flag(wire, "preemptible"),
        preempt_signal=_preempt_signal(wire),
        commit_id=_hexadecimal(wire, "commit_id", (40, 64)),
        snapshot=_snapshot(wire),
    )
    check_files(many, {"output": spec.output, "stderr": spec.stderr}, as_slurm=spec.as_slurm)
    return spec


def read_request(
    wire: Mapping[str, Any], default_gpus: int, machine: Sequence[Gpu] = ()
) -> Request:
    """What it asks for; GPUs that it names are looked up among those of the machine."""
    memory = wire.get("gpu_mem_bytes")
    if memory is not None:
        memory = read_integer(wire, "gpu_mem_bytes", 0, 1, 2**50)
    gpus = read_integer(wire, "gpus", default_gpus, 0, 64)
    model = wire.get("gpu_model")
    if model == "":
        raise UsageError("gpu_model: an empty name fits every GPU; leave it out")
    said = [option for option, name in _OF_GPUS.items() if wire.get(name)]
    if wire.get("gpus") is None and said == ["--cpu-after"]:
        said = []  # where there is no GPU it has come to that already
    if not gpus and said:
        raise UsageError(f"--gpus 0 takes no {said[0]}: it gets no GPU")
    alone = wire.get("exclusive")
    if alone is not None and not isinstance(alone, bool):
        raise UsageError(f"exclusive: {alone!r} is neither true nor false")
    exclusive = memory is None or bool(alone)
    max_util = wire.get("max_util")
    if max_util is not None and exclusive and not wire.get("gpu_mem"):
        instead = "add --gpu-mem SIZE" if memory is None else "leave out --exclusive"
        raise UsageError(
            f"--max-util is for a job that shares its GPU: {instead}. "
            "A job that has its GPUs alone gets idle ones anyway"
        )
    return Request(
        gpus=gpus,
        gpu_mem_bytes=memory,
        exclusive=exclusive,
        gpu_model=None if model is None else read_text(model, "gpu_model"),
        cpus=read_integer(wire, "cpus", 1, 1, 4096),
        max_util=None if max_util is None else read_integer(wire, "max_util", 0, 1, 100),
        gpu_ids=_named_gpus(wire, "gpu_ids", machine),
        exclude_gpus=_named_gpus(wire, "exclude_gpus", machine),
        cpu_after_s=_limit(wire, "cpu_after_s") if gpus else None,
    )


def _bounds(wire: Mapping[str, Any]) -> Bounds:
    """CPUs are bounded where somebody named a number: the slot of a job without GPUs that did not say
    is only what it is counted as."""
    memory, cpus = wire.get("mem_bytes"), wire.get("cpus")
    if memory is not None:
        memory = read_integer(wire, "mem_bytes", 0, LEAST_MEMORY, 2**50)
    return Bounds(
        mem_bytes=memory, cpus=None if cpus is None else read_integer(wire, "cpus", 1, 1, 4096)
    )


# What asks something of a GPU, and its name on the wire.
_OF_GPUS = {
    "--gpu-mem": "gpu_mem_bytes",
    "--gpu-mem auto": "gpu_mem",
    "--gpu-model": "gpu_model",
    "--gpu-id": "gpu_ids",
    "--exclude-gpu": "exclude_gpus",
    "--max-util": "max_util",
    "--cpu-after": "cpu_after_s",
}


def _wants_learned_memory(wire: Mapping[str, Any]) -> bool:
    """Is it to get as much of a GPU as its command used before?"""
    said = wire.get("gpu_mem")
    if said is None:
        return False
    if said != "auto":
        raise UsageError(f"gpu_mem: {said!r} is not auto; a size stands in gpu_mem_bytes")
    if wire.get("gpu_mem_bytes") is not None:
        raise UsageError("gpu_mem is auto and gpu_mem_bytes is a size: leave one of them out")
    if wire.get("exclusive"):
        raise UsageError(
            "--exclusive gives a job its GPU alone and --gpu-mem auto a share of one: "
            "leave one of them out"
        )
    return True


def _named_gpus(wire: Mapping[str, Any], field: str, machine: Sequence[Gpu]) -> tuple[str, ...]:
    """Their uuids, so that they mean the same after a restart, in the order of the machine."""
    words = [read_text(str(word), field) for word in read_list(wire, field)]
    found = find_gpus(words, machine)
    return tuple(gpu.uuid for gpu in machine if gpu.uuid in found)


def parse_signal(text: str | int) -> int:
    """A signal by name, with or without SIG, in any case, or by number."""
    word = str(text).strip().upper()
    try:
        if word.isdigit():
            return int(signals.Signals(int(word)))
        return int(signals.Signals["SIG" + word.removeprefix("SIG")])
    except (KeyError, ValueError):
        raise UsageError(f"{text!r} is no signal: write it like INT, SIGUSR1 or 10") from None


def _flag(wire: Mapping[str, Any], field: str) -> bool:
    value = wire.get(field) or False
    if not isinstance(value, bool):
        raise UsageError(f"{field}: {value!r} is neither true nor false")
    return value


def _preempt_signal(wire: Mapping[str, Any]) -> int | None:
    """Its number; what tells a job to give way has to be heard by it."""
    said = wire.get("preempt_signal")
    if said is None:
        return None
    if not wire.get("preemptible"):
        raise UsageError(
            "--preempt-signal says how a job is told to give way, and this one gives way to nobody. "
            "Add --preemptible"
        )
    try:
        return catchable_signal(said)
    except ValueError as error:
        raise UsageError(f"--preempt-signal: {error}") from None


def catchable_signal(text: str | int) -> int:
    """The number of a signal that a program can heed. Raises ValueError."""
    try:
        number = parse_signal(text)
    except UsageError as error:
        raise ValueError(str(error)) from None
    if number in (signals.SIGKILL, signals.SIGSTOP):
        raise ValueError(f"no program hears of {signals.Signals(number).name}: name another one")
    return number


def _seed(wire: Mapping[str, Any]) -> int:
    return read_integer(wire, "seed", 0, 0, 2**32 - 1)


def _limits(wire: Mapping[str, Any]) -> Mapping[str, int]:
    limits = {k: v for k, v in read_mapping(wire, "limits").items() if v is not None}
    return {name: read_integer(limits, name, 0, -1, 2**63 - 1) for name in limits}  # -1: unlimited


def _changes(wire: Mapping[str, Any]) -> dict[bytes, bytes]:
    changes = read_mapping(wire, "changes")
    for name in changes:
        if not name or "=" in name:
            raise UsageError(f"env: {name!r} cannot be the name of a variable")
    return {to_bytes("env", name): to_bytes("env", value) for name, value in changes.items()}


_TIMES = {
    "time_limit_s": "--time",
    "heartbeat_s": "--heartbeat",
    "cpu_after_s": "--cpu-after",
}


def _limit(wire: Mapping[str, Any], field: str) -> float | None:
    """A length of time, or none; nothing can be done in no time at all."""
    if wire.get(field) is None:
        return None
    seconds = read_seconds(wire, field, 0.0)
    if seconds < SHORTEST_LIMIT_S:
        option = _TIMES.get(field, field)
        raise UsageError(f"{option}: {seconds:g} s is shorter than {SHORTEST_LIMIT_S:g} s")
    return seconds


def _on_kill(wire: Mapping[str, Any]) -> bytes | None:
    text = None if wire.get("on_kill") is None else to_bytes("--on-kill", wire["on_kill"])
    if text is not None and not text.strip():
        raise UsageError("--on-kill: there is no command in it")
    return text


def _tags(wire: Mapping[str, Any]) -> tuple[str, ...]:
    tags = read_list(wire, "tags")
    if len(tags) > MOST_TAGS:
        raise UsageError(f"tags: {len(tags)} tags; {MOST_TAGS} are the most of one job")
    return tuple(read_text(tag, "tags") for tag in tags)


def _stop_after(wire: Mapping[str, Any]) -> int | None:
    text = wire.get("on_failure")
    try:
        return None if text is None else parse_on_failure(read_text(text, "on_failure"))
    except ValueError as error:
        raise UsageError(f"--on-failure: {error}") from None


def _rule(wire: Mapping[str, Any], field: str, parse: Callable[[str], Any]) -> str | None:
    """A rule as it was written, once it is known that it can be read; of no use without retries."""
    text = wire.get(field)
    if text is None:
        return None
    option = f"--{field.replace('_', '-')}"
    if not wire.get("retries"):
        raise UsageError(f"{option} says how to retry, and there are no retries. Add --retries N")
    try:
        parse(read_text(text, field))
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
    return str(text)


def _hook(wire: Mapping[str, Any], field: str) -> str | None:
    if wire.get(field) is None:
        return None
    try:
        return read_hook(wire[field])
    except ValueError as error:
        raise UsageError(f"--{field.replace('_', '-')}: {error}") from None


def _hexadecimal(wire: Mapping[str, Any], field: str, lengths: Sequence[int]) -> str | None:
    value = wire.get(field)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) not in lengths or set(value) - set(hexdigits):
        raise UsageError(f"{field}: {value!r} is not of {lengths[0]} hexadecimal digits")
    return value


def _snapshot(wire: Mapping[str, Any]) -> str | None:
    """The name of a copy, which is that of a folder: the state it is of, and a number where an earlier
    copy of that state is not as it was."""
    value = wire.get("snapshot")
    if value is not None and not (isinstance(value, str) and SNAPSHOT_NAME.fullmatch(value)):
        raise UsageError(f"snapshot: {value!r} is not the name of a copy")
    return value


def _hash(wire: Mapping[str, Any]) -> bytes:
    try:
        digest = bytes.fromhex(wire.get("env_hash") or "")
    except (TypeError, ValueError):
        digest = b""
    if len(digest) != 32:
        raise UsageError("env_hash: not the SHA-256 of an environment")
    return digest
