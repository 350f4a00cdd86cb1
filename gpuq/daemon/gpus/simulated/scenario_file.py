"""Reads a scenario from its file, and refuses what is wrong in it: file, table, key, what was wanted.

`scenario_keys.py` knows each key alone; here they are held against each other.
"""

import difflib
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from gpuq.core.gpus.gpu import Closeness
from gpuq.core.units import format_bytes
from gpuq.daemon.gpus.backend import MAX_GPUS
from gpuq.daemon.gpus.simulated.plain import SimulatedGpu, power_limit_w
from gpuq.daemon.gpus.simulated.scenario import (
    Behaviour,
    DriverTrouble,
    Fault,
    FaultKind,
    Link,
    Moment,
    Scenario,
    ScriptedGpu,
    Stranger,
    Tells,
    Trial,
    Use,
    Window,
    Xid,
)
from gpuq.daemon.gpus.simulated.scenario_keys import KEYS, TABLES
from gpuq.errors import UsageError

SHIPPED = os.path.join(os.path.dirname(__file__), "scenarios")
FIRST_PID = 5_000_001  # above 2**22, the most that Linux gives (pid_max in proc(5))


def read_scenario(name: str) -> Scenario:
    """The scenario in the file of that path, or the shipped one of that name. Raises UsageError."""
    is_shipped = "/" not in name and not name.endswith(".toml")
    path = os.path.join(SHIPPED, f"{name}.toml") if is_shipped else os.path.abspath(name)
    try:
        with open(path, "rb") as file:
            return scenario_of(tomllib.load(file), path)
    except (OSError, ValueError) as error:
        raise UsageError(_unreadable(name, error)) from None
    except RecursionError:
        raise UsageError(f"{name}: nested too deeply to be read") from None


def shipped_names() -> list[str]:
    files = (os.path.splitext(file) for file in os.listdir(SHIPPED))
    return sorted(name for name, kind in files if kind == ".toml")


def _unreadable(name: str, error: OSError | ValueError) -> str:
    if isinstance(error, tomllib.TOMLDecodeError | UnicodeDecodeError):
        return f'{name}: {error}. In TOML a text stands in quotes: from = "3s"'
    why = error.strerror if isinstance(error, OSError) else error
    return f"no scenario in {name!r}: {why}; the shipped ones are {', '.join(shipped_names())}"


def scenario_of(table: Mapping[str, Any], path: str) -> Scenario:
    """The scenario that the tables of a TOML file describe. Raises UsageError, which names `path`."""
    known = [*KEYS["story"], *TABLES]
    for name in table:
        if name not in known:
            raise UsageError(f"{path}: there is no {name!r}{_nearest(name, known)}")
    top = _row("story", {name: table[name] for name in KEYS["story"] if name in table}, path)
    rows = {kind: _rows(kind, table.get(kind, []), path) for kind in TABLES}
    story = _Story(gpus=_gpus(rows["gpu"], path), repeat_s=top["repeat"])
    return Scenario(
        folder=os.path.dirname(path),
        about=top["about"],
        repeat_s=top["repeat"],
        gpus=story.gpus,
        links=tuple(_link(row, story) for row in rows["link"]),
        jobs=tuple(_behaviour(row, story) for row in rows["jobs"]),
        uses=(*_processes(rows["process"], story), *(_use(row, story) for row in rows["load"])),
        faults=tuple(_fault(row, story) for row in rows["fault"]),
        xids=tuple(_xid(row, story) for row in rows["xid"]),
        driver=tuple(_driver(row, story) for row in rows["driver"]),
        trials=tuple(_trial(row, story) for row in rows["test"]),
        files=frozenset(_files(rows)),
    )


# ── tables ──


@dataclass(frozen=True, slots=True)
class _Row:
    """One table of the file: where it stands, and its values."""

    where: str
    values: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def wrong(self, key: str, why: str) -> UsageError:
        return UsageError(f"{self.where}: {key}: {why}")


def _rows(kind: str, tables: Any, path: str) -> list[_Row]:
    tables = [tables] if isinstance(tables, dict) else tables
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{path}: {kind}: it is a table: write [[{kind}]] above its keys")
    return [
        _row(kind, table, f"{path}: [[{kind}]] {number}") for number, table in enumerate(tables, 1)
    ]


def _row(kind: str, table: Mapping[str, Any], where: str) -> _Row:
    keys = KEYS[kind]
    for name in table:
        if name not in keys:
            raise UsageError(f"{where}: there is no key {name!r}{_nearest(name, keys)}")
    values = {}
    for name, key in keys.items():
        if name not in table and key.wanted is not None:
            raise UsageError(f"{where}: {name} is missing: {key.wanted}")
        try:
            values[name] = key.read(table[name]) if name in table else key.default
        except ValueError as error:
            raise UsageError(f"{where}: {name}: {error}") from None
    return _Row(where, values)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


# ── GPUs ──


@dataclass(frozen=True, slots=True)
class _Story:
    """What the other tables are held against."""

    gpus: tuple[ScriptedGpu, ...]
    repeat_s: float | None


def _gpus(rows: list[_Row], path: str) -> tuple[ScriptedGpu, ...]:
    gpus: list[ScriptedGpu] = []
    card = 0
    for row in rows:
        for _ in range(row["count"]):
            gpus += _instances(row, card) if row["mig"] else [_whole(row, card)]
            card += 1
        if len(gpus) > MAX_GPUS:
            raise row.wrong("count", f"at most {MAX_GPUS} GPUs can be simulated")
    if not gpus:
        raise UsageError(f'{path}: there is no GPU: write [[gpu]], and below it memory = "24G"')
    return tuple(gpus)


def _whole(row: _Row, card: int) -> ScriptedGpu:
    memory, reserved, idle = row["memory"], row["reserved"], row["idle_memory"]
    if memory is None and (reserved or idle):
        key = "reserved" if reserved else "idle_memory"
        raise row.wrong(key, "a GPU without memory of its own has none: leave it out")
    if memory is not None and reserved + idle >= memory:
        raise row.wrong("memory", "reserved and idle_memory leave nothing of it")
    return ScriptedGpu(
        card=card,
        model=_model(row),
        memory_bytes=memory,
        reserved_bytes=reserved,
        idle_bytes=idle,
        power_limit_w=_power_limit_w(row),
        one_process_only=row["mode"] == "exclusive_process",
        is_prohibited=row["mode"] == "prohibited",
        tells=Tells(row["processes"]),
    )


def _instances(row: _Row, card: int) -> list[ScriptedGpu]:
    whole = _whole(row, card)
    parts = [
        _row("mig", part, f"{row.where}: mig {number}") for number, part in enumerate(row["mig"], 1)
    ]
    if sum(part["memory"] for part in parts) > (whole.memory_bytes or 0):
        raise row.wrong("mig", "the instances have more memory than their card")
    if any(part["memory"] <= whole.idle_bytes for part in parts):
        raise row.wrong("mig", "idle_memory leaves nothing of an instance")
    return [
        ScriptedGpu(
            card=card,
            instance=number,
            model=f"{whole.model} MIG {part['name']}",
            memory_bytes=part["memory"],
            idle_bytes=whole.idle_bytes,
            power_limit_w=whole.power_limit_w,
            one_process_only=whole.one_process_only,
            is_prohibited=whole.is_prohibited,
            tells=whole.tells,
        )
        for number, part in enumerate(parts)
    ]


def _model(row: _Row) -> str:
    size = "" if row["memory"] is None else f" {format_bytes(row['memory'])}"
    return row["model"] or f"Simulated{size}"


def _power_limit_w(row: _Row) -> float:
    return row["power_limit"] or power_limit_w(
        SimulatedGpu(model=_model(row), memory_bytes=row["memory"] or 0)
    )


# ── what happens on them ──


def _which(row: _Row, story: _Story) -> frozenset[int]:
    named: frozenset[int] | None = row["gpus"]
    every = frozenset(range(len(story.gpus)))
    if named is not None and not named <= every:
        raise row.wrong("gpus", f"the last GPU of this scenario is {len(story.gpus) - 1}")
    return every if named is None else named


def _window(row: _Row, story: _Story) -> Window:
    begin: Moment = row["from"]
    end: Moment | None = row["until"]
    repeat_s = story.repeat_s
    if repeat_s is not None and isinstance(begin, float) and begin >= repeat_s:
        raise row.wrong("from", _too_late(repeat_s))
    if repeat_s is not None and isinstance(end, float) and end > repeat_s:
        raise row.wrong("until", _too_late(repeat_s))
    if isinstance(begin, float) and isinstance(end, float) and end <= begin:
        raise row.wrong("until", "it has to come later than from")
    return Window(begin=begin, end=end)


def _too_late(repeat_s: float) -> str:
    return f"it never comes: the story begins again after {repeat_s:g} s"


def _link(row: _Row, story: _Story) -> Link:
    gpus = _which(row, story)
    if len(gpus) < 2:
        raise row.wrong("gpus", "a link joins two GPUs or more")
    return Link(gpus=gpus, closeness=Closeness[row["by"].upper()])


def _behaviour(row: _Row, story: _Story) -> Behaviour:
    return Behaviour(
        gpus=_which(row, story),
        window=_window(row, story),
        uses=row["uses"],
        undeclared_bytes=row["undeclared"],
        ramp_s=row["ramp"],
        utilization=row["utilization"],
        release_s=row["release"],
    )


def _processes(rows: list[_Row], story: _Story) -> list[Use]:
    """Each gets a pid that matches no process of the machine, unless the file gives it one."""
    given = {row["pid"] for row in rows}
    free = iter(pid for pid in range(FIRST_PID, FIRST_PID + 2 * len(rows) + 1) if pid not in given)
    uses = []
    for row in rows:
        pid = row["pid"] if row["pid"] is not None else next(free)
        process = Stranger(pid=pid, user=row["user"], command=row["command"], unit=row["unit"])
        uses.append(_use(row, story, process))
    for (_, one), (row, other) in combinations(zip(rows, uses, strict=True), 2):
        if _collide(one, other):
            pid = other.process.pid if other.process else 0
            raise row.wrong("pid", f"{pid} is already that of another process at that time")
    return uses


def _collide(one: Use, other: Use) -> bool:
    """A process may use one GPU so and another otherwise, and it may come back."""
    if one.process is None or other.process is None or one.process.pid != other.process.pid:
        return False
    same = one.process == other.process and not one.gpus & other.gpus
    return not same and _may_meet(one.window, other.window)


def _may_meet(one: Window, other: Window) -> bool:
    """Could both be open at a time? A file may lie there whenever somebody wants it to."""
    return _earliest(one) < _latest(other) and _earliest(other) < _latest(one)


def _earliest(window: Window) -> float:
    return window.begin if isinstance(window.begin, float) else 0.0


def _latest(window: Window) -> float:
    return window.end if isinstance(window.end, float) else math.inf


def _use(row: _Row, story: _Story, process: Stranger | None = None) -> Use:
    gpus = _which(row, story)
    for index in sorted(gpus):
        room = story.gpus[index].room_bytes
        if room is not None and row["memory"] > room:
            has = f"GPU {index} has {format_bytes(room)} for all who use it"
            raise row.wrong("memory", f"{format_bytes(row['memory'])} is too much: {has}")
    return Use(
        gpus=gpus,
        window=_window(row, story),
        memory_bytes=row["memory"],
        utilization=row["utilization"],
        process=process,
    )


_SAYS = {
    FaultKind.LOST: "has fallen off the bus: see dmesg for XID 79, then reboot",
    FaultKind.RESET: "needs a reset: nvidia-smi --gpu-reset, or reboot",
    FaultKind.UNREADABLE: "could not be read",
    FaultKind.MISSING: "",
}


def _fault(row: _Row, story: _Story) -> Fault:
    kind = FaultKind(row["kind"])
    says = row["says"]
    if says is not None and kind is FaultKind.MISSING:
        raise row.wrong("says", "a GPU that is missing says nothing")
    if says is None and kind not in _SAYS:
        raise row.wrong("says", f"a {kind} is told in words: write them here")
    if row["lasting"] is not None and kind in (FaultKind.MISSING, FaultKind.WARNING):
        raise row.wrong("lasting", f"it is for other kinds than {kind}")
    lasts = kind in (FaultKind.LOST, FaultKind.RESET)
    return Fault(
        gpus=_which(row, story),
        window=_window(row, story),
        kind=kind,
        says=says if says is not None else _SAYS[kind],
        is_lasting=lasts if row["lasting"] is None else row["lasting"],
    )


def _xid(row: _Row, story: _Story) -> Xid:
    at: Moment = row["at"]
    if isinstance(at, float) and story.repeat_s is not None and at >= story.repeat_s:
        raise row.wrong("at", _too_late(story.repeat_s))
    return Xid(gpus=_which(row, story), at=at, codes=row["codes"])


def _driver(row: _Row, story: _Story) -> DriverTrouble:
    if row["hangs"] == (row["unavailable"] is not None):
        raise row.wrong("unavailable", "write either why there is no GPU, or hangs = true")
    return DriverTrouble(window=_window(row, story), unavailable=row["unavailable"])


def _trial(row: _Row, story: _Story) -> Trial:
    if row["fails"] is None and row["tflops"] is None and row["memory_gb_s"] is None:
        raise row.wrong("fails", "write why it fails, or how fast it is: tflops, memory_gb_s")
    return Trial(
        gpus=_which(row, story),
        window=_window(row, story),
        fails=row["fails"],
        tflops=row["tflops"],
        memory_gb_s=row["memory_gb_s"],
    )


def _files(rows: Mapping[str, list[_Row]]) -> Iterable[str]:
    for row in (row for kind in rows.values() for row in kind):
        for key in ("from", "until", "at"):
            if isinstance(row.values.get(key), str):
                yield row[key]
