"""What can be edited of a job: by the names of its options on the command line, and as TOML in an
editor. Text and values only; nothing is asked or written here."""

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from signal import Signals
from typing import Any, NamedTuple

from gpuq.cli.submit_again import exact_size, exact_time
from gpuq.core.units import parse_bytes, parse_seconds
from gpuq.errors import UsageError

Wire = dict[str, Any]
TROUBLE = "#! "  # begins the lines that say why a text was not taken

HEAD = """\
# {who} in the queue. Change what is asked for, save, and leave the editor.
# Left as it is, this text changes nothing; so does an editor that exits with another code than 0.
# A line that is taken out, or has a # before it, means the usual value.
"""
VARIABLES = """\

# Below this line stand only variables of the environment; options stand above it.
[env]  # set over the environment that it was submitted with"""
# Options of submit that no edit changes, and what to do instead.
NOT_EDITED = {
    "after": "submit it anew",
    "begin": "gpuq hold, and gpuq release when it may go; or submit it anew",
    "array": "of its %N: gpuq limit g12 --max-running N",
    "hold": "gpuq hold",
    "key": "submit it anew",
    "snapshot": "submit it anew",
    "seed": "submit it anew with --seed",
}


class Field(NamedTuple):
    """`name` is that of the option, `wire` what the daemon calls it. `read` takes what was written,
    `show` gives that back. `example` stands there where the job says nothing."""

    name: str
    wire: str
    read: Callable[[Any], Any]
    show: Callable[[Any], Any]
    example: Any


def _as_it_is(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text in quotes")
    return value


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _words(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{value!r} is not a list of texts in quotes")
    return value


def _time(value: Any) -> float:
    if isinstance(value, int) or _text(value).strip().isdecimal():
        raise ValueError(f"{value} of what? Write it like 30s, 30m or 30h")
    return parse_seconds(value)


def _size(value: Any) -> int:
    return parse_bytes(_text(value))


def _signal(value: Any) -> int:
    """By name or number, as --preempt-signal has it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    word = _text(value).strip().upper()
    if word.isdecimal():
        return int(word)
    try:
        return int(Signals["SIG" + word.removeprefix("SIG")])
    except KeyError:
        raise ValueError(f"{value!r} is no signal: write it like USR1, SIGUSR1 or 10") from None


def _show_signal(number: int) -> str | int:
    try:
        return Signals(number).name.removeprefix("SIG")
    except ValueError:  # one of those without a name
        return number


def _path(value: Any) -> str:
    return os.path.abspath(_text(value))


FIELDS = (
    Field("name", "name", _text, _as_it_is, "vit-b"),
    Field("command", "argv", _words, _as_it_is, []),
    Field("cwd", "cwd", _path, _as_it_is, "/home/me"),
    Field("gpus", "gpus", _number, _as_it_is, 1),
    Field("gpu_mem", "gpu_mem_bytes", _size, exact_size, "20G"),
    Field("exclusive", "exclusive", _switch, _as_it_is, True),
    Field("max_util", "max_util", _number, _as_it_is, 50),
    Field("gpu_model", "gpu_model", _text, _as_it_is, "H100"),
    Field("gpu_id", "gpu_ids", _words, _as_it_is, ["0", "1"]),
    Field("exclude_gpu", "exclude_gpus", _words, _as_it_is, ["0"]),
    Field("visible", "visible", _text, _as_it_is, "auto"),
    Field("cpus", "cpus", _number, _as_it_is, 4),
    Field("mem", "mem_bytes", _size, exact_size, "8G"),
    Field("time", "time_limit_s", _time, exact_time, "2h"),
    Field("heartbeat", "heartbeat_s", _time, exact_time, "10m"),
    Field("cpu_after", "cpu_after_s", _time, exact_time, "10m"),
    Field("on_kill", "on_kill", _text, _as_it_is, "rm -f /scratch/lock"),
    Field("grace", "grace_s", _time, exact_time, "10s"),
    Field("stop_to", "stop_to", _text, _as_it_is, "all"),
    Field("retries", "retries", _number, _as_it_is, 3),
    Field("backoff", "backoff", _text, _as_it_is, "exp:10s:10m"),
    Field("retry_on", "retry_on", _text, _as_it_is, "failed,oom,lost"),
    Field("priority", "priority", _number, _as_it_is, 0),
    Field("queue", "queue", _text, _as_it_is, "night"),
    Field("tag", "tags", _words, _as_it_is, ["sweep"]),
    Field("output", "output", _path, _as_it_is, "/home/me/log"),
    Field("stderr", "stderr", _path, _as_it_is, "/home/me/errors"),
    Field("on_start", "on_start", _text, _as_it_is, "echo started"),
    Field("on_end", "on_end", _text, _as_it_is, "mail -s done me"),
    Field("preemptible", "preemptible", _switch, _as_it_is, True),
    Field("preempt_signal", "preempt_signal", _signal, _show_signal, "USR1"),
)
BY_NAME = {field.name: field for field in FIELDS}
BY_WIRE = {field.wire: field.name for field in FIELDS} | {"gpu_mem": "gpu_mem"}


def to_wire(name: str, value: Any) -> Wire:
    """An option with its value as the daemon takes it; UsageError names the option."""
    field = BY_NAME[name]
    if name == "gpu_mem" and value == "auto":
        return {"gpu_mem": "auto"}
    try:
        return {field.wire: field.read(value)}
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def cleared(name: str) -> Wire:
    """An option that is to have its usual value again; "env.HOME" is one variable."""
    word = name.strip().replace("-", "_")
    if word.startswith("env."):
        return {"env": {name.strip().removeprefix("env."): None}}
    if word == "env":
        return {"env": None}
    if word in NOT_EDITED:
        raise UsageError(f"--clear {name}: no edit changes that: {NOT_EDITED[word]}")
    if word not in BY_NAME:
        raise UsageError(f"--clear {name}: it is one of {', '.join(BY_NAME)}, env or env.NAME")
    return {BY_NAME[word].wire: None}


def write(editable: Mapping[str, Any]) -> str:
    """The text for an editor."""
    first, last = editable["id"], editable["last_id"]
    who = f"Job {first} of {editable['user']}, as it waits"
    if last != first:
        who = f"Jobs {first}-{last} of {editable['user']}, all of them, as they wait"
    options = editable["options"]
    lines = [HEAD.format(who=who)]
    for field in FIELDS:
        said = options.get(field.wire)
        if said is None:
            lines.append(f"# {field.name} = {_literal(field.example)}")
        else:
            lines.append(f"{field.name} = {_literal(field.show(said))}")
    if "env" in options or editable.get("has_env", True):
        lines.append(VARIABLES)
        lines += [f"{_quoted(k)} = {_quoted(v)}" for k, v in options.get("env", {}).items()]
    return "\n".join(lines) + "\n"


def read(text: str, variables: Collection[str] | None = None) -> Wire:
    """All that a text from an editor says, as the daemon takes it. With `variables`, those that were
    there before, a new one with the name of an option is taken for that option in the wrong place."""
    import tomllib

    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"this is no TOML: {error}") from None
    env = found.pop("env", {})
    if unknown := [name for name in found if name not in BY_NAME]:
        instead = NOT_EDITED.get(unknown[0])
        raise UsageError(
            f"{unknown[0]}: nothing of that name can be edited{f': {instead}' if instead else ''}"
        )
    if variables is not None and isinstance(env, dict):
        _check_are_variables([name for name in env if name not in variables])
    if not isinstance(env, dict) or not all(isinstance(v, str) for v in env.values()):
        raise UsageError("[env]: each variable has a text in quotes")
    wire: Wire = {"env": env}
    for name, value in found.items():
        wire |= to_wire(name, value)
    return wire


def _check_are_variables(names: Sequence[str]) -> None:
    for name in names:
        if name in BY_NAME:
            raise UsageError(
                f"{name}: it stands below [env], as a variable of the environment. The option "
                f"{name} stands above [env]; for a variable of that name: gpuq edit JOB -e {name}=..."
            )
        if name in NOT_EDITED:
            raise UsageError(f"{name}: no edit changes that: {NOT_EDITED[name]}")


def differences(before: Wire, after: Wire) -> Wire:
    """What is to change for that; None where it is to be as usual."""
    names = [field.wire for field in FIELDS] + ["gpu_mem"]
    changes = {n: after.get(n) for n in names if before.get(n) != after.get(n)}
    old, new = before.get("env", {}), after.get("env", {})
    variables = {name: new.get(name) for name in {**old, **new} if old.get(name) != new.get(name)}
    if changes.get("gpu_mem"):
        changes.pop("gpu_mem_bytes", None)
    return changes | ({"env": variables} if variables else {})


def with_trouble(text: str, trouble: str) -> str:
    """The text, with why it was not taken above it."""
    said = "".join(f"{TROUBLE}{line}\n" for line in trouble.splitlines())
    return f"{said}{TROUBLE}Nothing was changed. Mend it, or leave it like this to give up.\n{text}"


def without_trouble(text: str) -> str:
    return "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith(TROUBLE.rstrip())
    )


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_quoted, value))}]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    """A basic string of TOML: as in JSON, but for one sign that has to be written out there."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
