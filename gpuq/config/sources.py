"""Where settings come from: a flag, then the environment, then the file, then the default.

A default may follow from the machine, the user or another setting.
"""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from gpuq import paths
from gpuq.config import table
from gpuq.config.file import read_file
from gpuq.config.in_force import Config, Value
from gpuq.config.setting import Setting
from gpuq.toml_file import is_there

# The origin of GPUs that nobody named this time.
AS_LAST_STARTED = "as it was last started"
BESIDE_SYSTEM = "default beside a system daemon"


def load(flags: Mapping[str, Any], environ: Mapping[str, str], *, mode: str = "user") -> Config:
    """The settings in force; UsageError names the value, where it stands and what is wrong.

    `mode` is user, system (one daemon for the machine) or throwaway (it takes all with it).
    """
    system = mode == "system"
    flags, environ = _anchored(flags, environ)
    path, path_origin = _config_path(flags, environ, system)
    asked = path_origin != "default"
    file = read_file(path) if asked or is_there(path) else {}
    variables = {} if system else environ  # no user's environment is the machine's
    values = {"config": Value(path, path_origin), "mode": Value(mode, "how it was started")}
    values["queues"] = Value(file.get("queues", ()), path)
    for setting in table.SETTINGS:
        if setting.name != "config":
            values[setting.name] = _find(setting, flags, variables, file, path)
    if _strength(values["state_dir"]) > _strength(values["socket"]):
        values["socket"] = Value(None, "default")  # it follows what was said more strongly
    _fill_in_defaults(values, environ, system)
    return Config(values, partial(load, flags, environ, mode=mode))


def _anchored(
    flags: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """A path is meant from where the process was started, and a daemon leaves that place."""
    flags, environ = dict(flags), dict(environ)
    for setting in table.SETTINGS:
        for given, name in ((flags, setting.name), (environ, setting.variable or "")):
            if given.get(name) and isinstance(given[name], str):
                given[name] = setting.meant_from("", given[name])
    return flags, environ


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
    variables: Mapping[str, str],
    file: Mapping[str, Any],
    path: str,
) -> Value:
    if flags.get(setting.name) is not None:
        return Value(setting.checked(flags[setting.name], setting.flag), setting.flag)
    variable = setting.variable
    if variable and variables.get(variable):
        return Value(setting.checked(variables[variable], variable), variable)
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
