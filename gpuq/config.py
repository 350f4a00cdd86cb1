"""Settings, each with its origin: a flag, then the environment, then the file, then the default.

The only reader of config files, and of the environment on the daemon's side.
"""

import difflib
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpuq import paths
from gpuq.core.hours import format_hours, parse_hours
from gpuq.core.model import OverMemory, Policy, WeekSpan
from gpuq.core.units import parse_bytes, parse_seconds
from gpuq.errors import UsageError

# The origin of GPUs that nobody named this time.
AS_LAST_STARTED = "as it was last started"
BESIDE_SYSTEM = "default beside a system daemon"
NOTHING = "–"
LONGEST_LIST_ITEM = 200
_NO_FILE = "it is a pipe or a device. Put a regular file there"


@dataclass(frozen=True, slots=True)
class Setting:
    """What may be set: how a value is read, its default, and where it may stand."""

    name: str
    read: Callable[[Any], Any]
    default: Any
    help: str
    variable: str | None = None
    show: Callable[[Any], str] = str
    at_start: bool = False  # a change takes a restart; all else is in force once the file is saved

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def form(self) -> str:
        """What kind of value it takes, in a word."""
        return _FORMS[getattr(self.read, "func", self.read)]


@dataclass(frozen=True, slots=True)
class Value:
    value: Any
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A setting that has another value, both as people write them, and where the new one stands."""

    name: str
    before: str
    after: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where settings are looked for; paths among them are whole, wherever the process goes."""

    flags: Mapping[str, Any]
    environ: Mapping[str, str]
    mode: str


class Config:
    """All settings as values with origins; `config.state_dir` and its like are the values alone.

    A daemon has one for life: what a changed file says is taken over in place, so that whoever holds
    it goes by that at once. `fault` is why the file as it stands is not in force, `pending` is what
    it says that takes a restart.
    """

    def __init__(self, values: Mapping[str, Value], sources: Sources) -> None:
        self._values = dict(values)
        self._sources = sources
        self._policy: Policy | None = None
        self.fault: str | None = None
        self.pending: tuple[Change, ...] = ()

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
        return Config(self._values | {name: Value(value, origin)}, self._sources)

    def read_again(self) -> "Config":
        """What a daemon that is started now in the same way would go by. UsageError as from `load`."""
        return load(self._sources.flags, self._sources.environ, mode=self._sources.mode)

    def take_over(self, other: "Config") -> list[Change]:
        """From now on goes by the values of `other`, but for what takes a restart. Returns what has
        changed; in `pending` stands what has not, though the file wants it."""
        changed, pending = [], []
        for setting in SETTINGS:
            ours, theirs = self._values[setting.name], other._values[setting.name]
            change = Change(
                name=setting.name,
                before=_shown(setting, ours.value),
                after=_shown(setting, theirs.value),
                origin=theirs.origin,
            )
            if not setting.at_start:
                self._values[setting.name] = theirs
                changed += [change] if theirs.value != ours.value else []
            # Flags and variables stay as they are for life, and what follows from another setting
            # or was kept from the last start is nobody's wish: only the file can want a change.
            elif theirs.value != ours.value and self.config in (ours.origin, theirs.origin):
                pending.append(change)
        self._policy, self.fault, self.pending = None, None, tuple(pending)
        return changed

    def notes(self) -> list[str]:
        """What keeps the file as it stands from being in force, in sentences."""
        notes = []
        if self.fault is not None:
            stays = "the settings before stay in force"
            notes.append(f"the file was changed and cannot be read: {self.fault}; {stays}")
        if self.pending:
            wants = ", ".join(map(self._wish_words, self.pending))
            notes.append(f"restart needed: {wants}: gpuq daemon restart")
        return notes

    def _wish_words(self, change: Change) -> str:
        says = "the file says" if change.origin == self.config else "no longer in the file:"
        return f"{change.name} (now {change.before}, {says} {change.after})"

    def policy(self) -> Policy:
        """The settings that the scheduler goes by, as they are now."""
        if self._policy is None:
            self._policy = self._make_policy()
        return self._policy

    def _make_policy(self) -> Policy:
        return Policy(
            cpu_slots=self.cpu_slots,
            max_jobs_per_gpu=self.max_jobs_per_gpu,
            max_bypass=self.max_bypass,
            headroom_bytes=self.headroom,
            unkillable_s=self.unkillable_after,
            idle_memory_bytes=self.idle_memory,
            idle_utilization_percent=self.idle_utilization,
            calm_samples=self.calm_samples,
            calm_s=self.calm_for,
            cooling_s=self.cooling,
            settle_s=self.settle,
            allow_gpus=self.allow_gpus,
            deny_gpus=self.deny_gpus,
            gpu_order=self.gpu_order,
            reserve_idle=self.reserve_idle,
            reserve_hours=self.reserve_hours,
            ignore_processes=self.ignore_processes,
            ignore_users=self.ignore_users,
            over_memory=OverMemory(self.enforce_gpu_memory),
            idle_job_s=self.idle_after,
            idle_job_percent=self.idle_percent,
            fast_failures=self.fast_failures,
            fast_failure_s=self.fast_failure_within,
            strict_health=self.strict_health,
            max_running_per_user=self.max_running_per_user or None,
            max_gpus_per_user=self.max_gpus_per_user or None,
        )


def load(flags: Mapping[str, Any], environ: Mapping[str, str], *, mode: str = "user") -> Config:
    """The settings in force; UsageError names the value, where it stands and what is wrong.

    `mode` is user, system (one daemon for the machine) or throwaway (it takes all with it).
    """
    system = mode == "system"
    sources = _anchored(flags, environ, mode)
    flags, environ = sources.flags, sources.environ
    path, path_origin = _config_path(flags, environ, system)
    asked = path_origin != "default"
    file = read_file(path) if asked or _is_there(path) else {}
    values = {"config": Value(path, path_origin), "mode": Value(mode, "how it was started")}
    for setting in SETTINGS:
        if setting.name != "config":
            values[setting.name] = _find(setting, flags, environ, file, path, system)
    if _strength(values["state_dir"]) > _strength(values["socket"]):
        values["socket"] = Value(None, "default")  # it follows what was said more strongly
    _fill_in_defaults(values, environ, system)
    return Config(values, sources)


def _anchored(flags: Mapping[str, Any], environ: Mapping[str, str], mode: str) -> Sources:
    """A path is meant from where the process was started, and a daemon leaves that place."""
    flags, environ = dict(flags), dict(environ)
    for setting in SETTINGS:
        for given, name in ((flags, setting.name), (environ, setting.variable or "")):
            if given.get(name) and isinstance(given[name], str):
                given[name] = _meant_from("", setting, given[name])
    return Sources(flags=flags, environ=environ, mode=mode)


def _meant_from(folder: str, setting: Setting, value: str) -> str:
    """The same with whole paths, where there are some in it; an empty folder is where we are."""
    if setting.read is _path:
        return _path(os.path.join(folder, os.path.expanduser(value)))
    return whole_gpus(value, folder) if setting.name == "gpus" else value


def whole_gpus(gpus: str, folder: str = "") -> str:
    """The same GPUs with the whole path of their scenario, where a file in `folder` is meant and not
    one that is shipped. An empty folder is where we are."""
    kind, _, name = gpus.strip().partition(":")
    path = os.path.abspath(os.path.join(folder, os.path.expanduser(name)))
    is_file = "/" in name or name.endswith(".toml") or os.path.isfile(path)
    return f"scenario:{path}" if kind == "scenario" and is_file else gpus


def _is_there(path: str) -> bool:
    """What nobody may read is there, and reading it tells why not."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


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


def _is_file(found: os.stat_result) -> bool:
    """One with an end, so that reading it does not wait for anybody; so is /dev/null, which says that
    no file is meant."""
    is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev
    return is_null or stat.S_ISREG(found.st_mode)


def _parse(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not _is_file(os.fstat(file.fileno())):
                raise UsageError(f"cannot read the config file {path}: {_NO_FILE}")
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply to be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = 'In TOML a text stands in quotes: grace = "3s"'
        raise UsageError(f"{path}: {error}. {hint}") from None
    except ValueError:  # which int() says of over 4300 digits
        raise UsageError(f"{path}: a number in it has thousands of digits. Write less") from None


def _open_at_once(path: str, flags: int) -> int:
    """A FIFO would have us wait for somebody who writes to it, and nobody may ever come."""
    return os.open(path, flags | os.O_NONBLOCK)


def _config_path(
    flags: Mapping[str, Any], environ: Mapping[str, str], system: bool
) -> tuple[str, str]:
    if flags.get("config"):
        return flags["config"], "--config"
    if environ.get("GPUQ_CONFIG"):
        return environ["GPUQ_CONFIG"], "GPUQ_CONFIG"
    return (paths.SYSTEM_CONFIG if system else paths.default_config(environ)), "default"


def _find(
    setting: Setting,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Mapping[str, Any],
    path: str,
    system: bool,
) -> Value:
    if flags.get(setting.name) is not None:
        return Value(_read(setting, flags[setting.name], setting.flag), setting.flag)
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
    # The GPUs are the system daemon's to give, to everybody of this machine.
    is_beside = values["mode"].value == "user" and paths.has_system_daemon()
    if values["gpus"].origin == "default" and is_beside:
        values["gpus"] = Value("none", BESIDE_SYSTEM)


def _checked(known: Mapping[str, Setting], name: str, value: Any, path: str) -> Any:
    """A path in a file means the same from wherever it is read: it starts where the file is."""
    if name not in known or name == "config":
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
        raise UsageError(f"{path}: there is no setting {name!r}{hint}")
    if isinstance(value, str) and value:
        value = _meant_from(os.path.dirname(path), known[name], value)
    return _read(known[name], value, f"{path}: {name}")


def _read(setting: Setting, value: Any, where: str) -> Any:
    try:
        return setting.read(value)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: {error}") from None


def _shown(setting: Setting, value: Any) -> str:
    return NOTHING if value is None else setting.show(value)


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no path")
    return os.path.abspath(os.path.expanduser(value))


def _whole(low: int, high: int) -> Callable[[Any], int]:
    return partial(_read_whole, low, high)


def _read_whole(low: int, high: int, value: Any) -> int:
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
    return number


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
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _size_shown(size: int) -> str:
    """In the largest unit in which it can be written and read back as the same."""
    for unit, scale in (("T", 2**40), ("G", 2**30), ("M", 2**20), ("K", 2**10)):
        text = f"{size / scale:.9f}".rstrip("0").rstrip(".") + unit
        if size >= scale and parse_bytes(text) == size:
            return text
    return f"{size / 2**10:.10f}".rstrip("0").rstrip(".") + "K"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    """A list in the file; on a command line its parts are joined by commas."""
    if isinstance(value, str):
        value = [] if value == NOTHING else [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list):
        raise ValueError(f'{value!r} is no list like [0, "GPU-8f2c"]')
    return tuple(map(_list_item, value))


def _list_item(value: Any) -> str:
    """A text or a number, such that a list of them can be shown with commas between."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip() or not text.isprintable() or "," in text:
        raise ValueError(f"{value!r} is neither a number nor a printable text without a comma")
    if len(text) > LONGEST_LIST_ITEM:
        raise ValueError(f"{text[:20]}… is longer than {LONGEST_LIST_ITEM} signs")
    return text.strip()


def _texts_shown(texts: tuple[str, ...]) -> str:
    return ", ".join(texts) or NOTHING


def _one_of(*words: str) -> Callable[[Any], str]:
    return partial(_read_one_of, words)


def _read_one_of(words: tuple[str, ...], value: Any) -> str:
    if value not in words:
        raise ValueError(f"{value!r} is none of {', '.join(words)}")
    return str(value)


def _flag(value: Any) -> bool:
    known = {"true": True, "false": False, "yes": True, "no": False}
    flag = known.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return flag


def _flag_shown(flag: bool) -> str:
    return "true" if flag else "false"


def _hours(value: Any) -> tuple[WeekSpan, ...]:
    """A text, or in the file a list of such texts."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = ", ".join(value)
    return () if value in ("", NOTHING) else parse_hours(value)


_FORMS: dict[Callable[..., Any], str] = {
    _path: "PATH",
    _text: "TEXT",
    _texts: "LIST",
    _size: "SIZE",
    _duration: "TIME",
    _hours: "HOURS",
    _flag: "BOOL",
    _read_whole: "N",
    _read_one_of: "WORD",
}

_DAEMON = (
    Setting("config", _path, None, "the file with the settings", "GPUQ_CONFIG", at_start=True),
    Setting("state_dir", _path, None, "all that the daemon keeps", "GPUQ_STATE_DIR", at_start=True),
    Setting("socket", _path, None, "where it answers", "GPUQ_SOCKET", at_start=True),
    Setting(
        "gpus",
        _text,
        "nvml",
        "nvml, none, simulated ones like sim:4x24G, or a scenario: a file or scenario:shared-box",
        "GPUQ_GPUS",
        at_start=True,
    ),
    Setting("cpu_slots", _whole(1, 4096), None, "how many --gpus 0 jobs run at once, by --cpus"),
    Setting("default_gpus", _whole(0, 64), 1, "GPUs of a job that does not say"),
    Setting("max_bypass", _whole(0, 1000), 10, "how often a waiting job may be overtaken"),
    Setting("grace", _duration, 10.0, "from TERM to KILL", show=_seconds_shown),
    Setting(
        "unkillable_after",
        _duration,
        60.0,
        "from KILL until what lives on is called unkillable",
        show=_seconds_shown,
    ),
    Setting(
        "shutdown_grace",
        _duration,
        60.0,
        "the longest grace when the machine shuts down",
        show=_seconds_shown,
    ),
    Setting(
        "inhibit_shutdown",
        _one_of("none", "delay", "block"),
        "none",
        "keep the machine from shutting down while jobs run: none, delay or block",
    ),
    Setting(
        "cgroup",
        _text,
        "auto",
        "where jobs get a control group: auto, none, or a directory",
        at_start=True,
    ),
    Setting(
        "scopes",
        _one_of("auto", "none"),
        "auto",
        "may systemd hold jobs to --mem and --cpus: auto or none",
        at_start=True,
    ),
    Setting("log_cap", _size, 2**30, "the middle of a longer log is dropped", show=_size_shown),
    Setting(
        "keep_free",
        _size,
        512 * 2**20,
        "disk space below which logs are cut shorter",
        show=_size_shown,
    ),
    Setting("keep_for", _duration, 30 * 86400.0, "how long logs are kept", show=_seconds_shown),
    Setting("keep_size", _size, 10 * 2**30, "how much of logs is kept", show=_size_shown),
)

_WHICH_GPUS = (
    Setting(
        "allow_gpus",
        _texts,
        (),
        "give out only these GPUs: index, UUID or bus id",
        show=_texts_shown,
    ),
    Setting("deny_gpus", _texts, (), "never give out these GPUs", show=_texts_shown),
    Setting("gpu_order", _texts, (), "which GPUs to give out first", show=_texts_shown),
    Setting("reserve_idle", _whole(0, 64), 0, "GPUs to leave to people outside gpuq"),
    Setting(
        "reserve_hours",
        _hours,
        (),
        "when to leave them: mon-fri 09:00-18:00; always, unless said",
        show=format_hours,
    ),
)

_FREE = (
    Setting(
        "idle_memory",
        _size,
        300 * 2**20,
        "memory over its own idle use up to which a GPU is free",
        show=_size_shown,
    ),
    Setting("idle_utilization", _whole(1, 100), 10, "percent below which a GPU is free"),
    Setting("calm_samples", _whole(1, 1000), 3, "readings that have to find a GPU free again"),
    Setting("calm_for", _duration, 3.0, "the time that they cover at least", show=_seconds_shown),
    Setting(
        "cooling",
        _duration,
        30.0,
        "how long the memory of an ended job may take to come back",
        show=_seconds_shown,
    ),
    Setting(
        "ignore_processes",
        _texts,
        ("Xorg", "Xwayland", "gnome-shell", "kwin_wayland", "kwin_x11", "plasmashell", "sddm"),
        "programs that do not make a GPU busy",
        show=_texts_shown,
    ),
    Setting(
        "ignore_users", _texts, (), "users whose processes do not make it busy", show=_texts_shown
    ),
)

_SHARING = (
    Setting("max_jobs_per_gpu", _whole(1, 64), 8, "jobs that may share one GPU"),
    Setting("headroom", _size, 512 * 2**20, "GPU memory kept free when sharing", show=_size_shown),
    Setting(
        "settle",
        _duration,
        15.0,
        "how long a job that starts may take to show what it uses",
        show=_seconds_shown,
    ),
    Setting(
        "enforce_gpu_memory",
        _one_of(*OverMemory),
        "warn",
        "a job that uses more GPU memory than it asked for: off, warn or end",
    ),
    Setting(
        "soft_limits",
        _flag,
        True,
        "tell torch and JAX how much memory a sharing job asked for",
        show=_flag_shown,
    ),
)

_FAULTS = (
    Setting(
        "idle_after",
        _duration,
        600.0,
        "a job that computes nothing for so long is flagged",
        show=_seconds_shown,
    ),
    Setting("idle_percent", _whole(0, 100), 5, "utilisation below which it computes nothing"),
    Setting("fast_failures", _whole(1, 1000), 3, "quick failures in a row that get a GPU tested"),
    Setting(
        "fast_failure_within",
        _duration,
        30.0,
        "how soon after its start a failure is quick",
        show=_seconds_shown,
    ),
    Setting(
        "strict_health",
        _flag,
        False,
        "give nothing to a GPU that only warns of its health",
        show=_flag_shown,
    ),
)

_USERS = (
    Setting("admin_group", _text, "gpuq-admin", "its members may change the jobs of everybody"),
    Setting(
        "allow_groups",
        _texts,
        (),
        "only their members are served; everybody, unless said",
        show=_texts_shown,
    ),
    Setting("allow_root_jobs", _flag, False, "root may submit jobs", show=_flag_shown),
    Setting(
        "visibility",
        _one_of("all", "own"),
        "all",
        "whose commands, names and folders of jobs one sees: all or one's own",
    ),
    Setting(
        "max_queued_per_user",
        _whole(0, 10**9),
        0,
        "jobs that one user may have in the queue; 0: any number",
    ),
    Setting(
        "max_running_per_user",
        _whole(0, 10**6),
        0,
        "jobs of one user that run at a time; 0: any number",
    ),
    Setting(
        "max_gpus_per_user",
        _whole(0, 1024),
        0,
        "GPUs that the jobs of one user hold at a time; 0: any number",
    ),
)

GROUPS = {
    "the daemon and its jobs": _DAEMON,
    "which GPUs, and which of them first": _WHICH_GPUS,
    "when a GPU is free": _FREE,
    "sharing a GPU": _SHARING,
    "jobs that do not use their GPU, and GPUs that fail": _FAULTS,
    "several users on one machine": _USERS,
}
SETTINGS = tuple(setting for settings in GROUPS.values() for setting in settings)
