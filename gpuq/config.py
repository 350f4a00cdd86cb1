"""Settings, each with its origin: a flag, then the environment, then the file, then the default.

The only reader of config files, and of the environment on the daemon's side.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpuq import paths
from gpuq.core.model import Policy
from gpuq.core.units import format_bytes, parse_bytes, parse_seconds
from gpuq.errors import UsageError


@dataclass(frozen=True, slots=True)
class Setting:
    """What may be set: how a value is read, its default, and where it may stand."""

    name: str
    read: Callable[[Any], Any]
    default: Any
    help: str
    variable: str | None = None
    show: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True)
class Value:
    value: Any
    origin: str


class Config:
    """All settings as values with origins; `config.state_dir` and its like are the values alone."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name].value
        except KeyError:
            raise AttributeError(name) from None

    def settings(self) -> list[tuple[str, str, str]]:
        """(name, value as people write it, origin), in the order of the table below."""
        return [
            (setting.name, _shown(setting, self._values[setting.name].value), origin)
            for setting in SETTINGS
            for origin in [self._values[setting.name].origin]
        ]

    def origin(self, name: str) -> str:
        return self._values[name].origin

    def having(self, name: str, value: Any, origin: str) -> "Config":
        """The same with another value in one place."""
        return Config(self._values | {name: Value(value, origin)})

    def policy(self) -> Policy:
        return Policy(
            cpu_slots=self.cpu_slots,
            max_jobs_per_gpu=self.max_jobs_per_gpu,
            max_bypass=self.max_bypass,
            headroom_bytes=self.headroom,
            unkillable_s=self.unkillable_after,
        )


def load(flags: Mapping[str, Any], environ: Mapping[str, str], *, mode: str = "user") -> Config:
    """The settings in force; UsageError names the value, where it stands and what is wrong.

    `mode` is user, system (one daemon for the machine) or throwaway (it takes all with it).
    """
    system = mode == "system"
    path, path_origin = _config_path(flags, environ, system)
    asked = path_origin != "default"
    file = read_file(path) if asked or os.path.exists(path) else {}
    values = {"config": Value(path, path_origin), "mode": Value(mode, "how it was started")}
    for setting in SETTINGS:
        if setting.name != "config":
            values[setting.name] = _find(setting, flags, environ, file, path, system)
    if _strength(values["state_dir"]) > _strength(values["socket"]):
        values["socket"] = Value(None, "default")  # it follows what was said more strongly
    _fill_in_defaults(values, environ, system)
    return Config(values)


def read_file(path: str) -> dict[str, Any]:
    """The settings in a TOML file, read and checked. The screen's `[top]` table is left to it."""
    table = _parse(path)
    table.pop("top", None)
    known = {setting.name: setting for setting in SETTINGS}
    return {name: _checked(known, name, value, path) for name, value in table.items()}


def peek(path: str) -> dict[str, str]:
    """Where the file puts the daemon. A mistake elsewhere in it must not keep a client from asking
    a daemon that runs; what cannot be read is taken for empty, and the daemon or doctor says why."""
    try:
        table = _parse(path)
        known = {setting.name: setting for setting in SETTINGS}
        wanted = ("socket", "state_dir")
        return {name: _checked(known, name, table[name], path) for name in wanted if name in table}
    except UsageError:
        return {}


def _parse(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply to be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = 'In TOML a text stands in quotes: grace = "3s"'
        raise UsageError(f"{path}: {error}. {hint}") from None


def _config_path(
    flags: Mapping[str, Any], environ: Mapping[str, str], system: bool
) -> tuple[str, str]:
    if flags.get("config"):
        return os.path.abspath(flags["config"]), "--config"
    if environ.get("GPUQ_CONFIG"):
        return os.path.abspath(environ["GPUQ_CONFIG"]), "GPUQ_CONFIG"
    return (paths.SYSTEM_CONFIG if system else paths.default_config(environ)), "default"


def _find(
    setting: Setting,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Mapping[str, Any],
    path: str,
    system: bool,
) -> Value:
    flag = "--" + setting.name.replace("_", "-")
    if flags.get(setting.name) is not None:
        return Value(_read(setting, flags[setting.name], flag), flag)
    if setting.variable and environ.get(setting.variable) and not system:
        return Value(_read(setting, environ[setting.variable], setting.variable), setting.variable)
    if setting.name in file:
        return Value(file[setting.name], path)
    return Value(setting.default, "default")


def _strength(value: Value) -> int:
    """A flag is stronger than the environment, that than the file, and all than a default."""
    if value.origin.startswith("--"):
        return 3
    if value.origin.startswith("GPUQ_"):
        return 2
    return 0 if value.origin == "default" else 1


def _fill_in_defaults(values: dict[str, Value], environ: Mapping[str, str], system: bool) -> None:
    """Those defaults that follow from the machine, the user or another setting."""
    if values["state_dir"].value is None:
        default = paths.default_state_dir(environ, os.geteuid())
        values["state_dir"] = Value(paths.SYSTEM_STATE_DIR if system else default, "default")
    if values["socket"].value is None:
        inside = os.path.join(values["state_dir"].value, paths.SOCKET_NAME)
        values["socket"] = Value(paths.SYSTEM_SOCKET if system else inside, "default")
    if values["cpu_slots"].value is None:
        values["cpu_slots"] = Value(len(os.sched_getaffinity(0)), "default")


def _checked(known: Mapping[str, Setting], name: str, value: Any, path: str) -> Any:
    """A path in a file means the same from wherever it is read: it starts where the file is."""
    if name not in known or name == "config":
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
        raise UsageError(f"{path}: there is no setting {name!r}{hint}")
    if known[name].read is _path and isinstance(value, str) and value:
        value = os.path.join(os.path.dirname(path), os.path.expanduser(value))
    return _read(known[name], value, f"{path}: {name}")


def _read(setting: Setting, value: Any, where: str) -> Any:
    try:
        return setting.read(value)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: {error}") from None


def _shown(setting: Setting, value: Any) -> str:
    return "–" if value is None else setting.show(value)


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no path")
    return os.path.abspath(os.path.expanduser(value))


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = int(value) if isinstance(value, str) and value.isdigit() else value
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
        return number

    return read


def _size(value: Any) -> int:
    return parse_bytes(str(value))


def _duration(value: Any) -> float:
    seconds = parse_seconds(str(value))
    if seconds > 10**9:
        raise ValueError(f"{str(value)[:20]!r} is longer than gpuq will live")
    return seconds


def _seconds_shown(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length and seconds % length == 0:
            return f"{seconds // length:g}{unit}"
    return f"{seconds:g}s"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


SETTINGS = (
    Setting("config", _path, None, "the file with the settings", "GPUQ_CONFIG"),
    Setting("state_dir", _path, None, "all that the daemon keeps", "GPUQ_STATE_DIR"),
    Setting("socket", _path, None, "where it answers", "GPUQ_SOCKET"),
    Setting("gpus", _text, "nvml", "nvml, none, or simulated ones: sim:4x24G", "GPUQ_GPUS"),
    Setting("cpu_slots", _whole(1, 4096), None, "how many --gpus 0 jobs run at once, by --cpus"),
    Setting("default_gpus", _whole(0, 64), 1, "GPUs of a job that does not say"),
    Setting("max_jobs_per_gpu", _whole(1, 64), 8, "jobs that may share one GPU"),
    Setting("max_bypass", _whole(0, 1000), 10, "how often a waiting job may be overtaken"),
    Setting("grace", _duration, 10.0, "from TERM to KILL", show=_seconds_shown),
    Setting(
        "unkillable_after",
        _duration,
        60.0,
        "from KILL until what lives on is called unkillable",
        show=_seconds_shown,
    ),
    Setting("cgroup", _text, "auto", "where jobs get a control group: auto, none, or a directory"),
    Setting("log_cap", _size, 2**30, "the middle of a longer log is dropped", show=format_bytes),
    Setting(
        "keep_free",
        _size,
        512 * 2**20,
        "disk space below which logs are cut shorter",
        show=format_bytes,
    ),
    Setting("keep_for", _duration, 30 * 86400.0, "how long logs are kept", show=_seconds_shown),
    Setting("keep_size", _size, 10 * 2**30, "how much of logs is kept", show=format_bytes),
    Setting("headroom", _size, 512 * 2**20, "GPU memory kept free when sharing", show=format_bytes),
)
