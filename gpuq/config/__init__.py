"""Settings, each with its origin: a flag, then the environment, then the file, then the default.

The only reader of config files, and of the environment on the daemon's side.

`table` says what may be set, `setting` what one setting is and `forms` how values are written;
`file` reads the config file, `sources` finds every value, `in_force` holds what was found.
"""

from gpuq.config.file import peek, read_file
from gpuq.config.forms import whole_gpus
from gpuq.config.in_force import Change, Config
from gpuq.config.queues import QUEUE_SETTINGS
from gpuq.config.setting import Setting
from gpuq.config.sources import AS_LAST_STARTED, BESIDE_SYSTEM, load
from gpuq.config.table import GROUPS, SETTINGS

__all__ = [
    "AS_LAST_STARTED",
    "BESIDE_SYSTEM",
    "GROUPS",
    "QUEUE_SETTINGS",
    "SETTINGS",
    "Change",
    "Config",
    "Setting",
    "load",
    "peek",
    "read_file",
    "whole_gpus",
]
