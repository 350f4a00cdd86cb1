"""The table of all settings, group by group: each with its default and what it is for.

What a setting is and can do stands in `setting.py`, what kinds of values there are in `forms.py`.
"""

from signal import SIGTERM

from gpuq.config.forms import (
    one_of,
    read_bool,
    read_half_life,
    read_hook_setting,
    read_hours,
    read_interval,
    read_list,
    read_on_failure,
    read_path,
    read_rate,
    read_signal,
    read_size,
    read_text,
    read_textfile,
    read_time,
    show_bool,
    show_list,
    show_signal,
    show_size,
    show_time,
    whole_number,
)
from gpuq.config.setting import Setting
from gpuq.core.asked.hooks import shown_hook
from gpuq.core.hours import format_hours
from gpuq.core.policy import OverMemory
from gpuq.core.scheduling.rate import format_rate

_DAEMON = (
    Setting("config", read_path, None, "the file with the settings", "GPUQ_CONFIG", at_start=True),
    Setting(
        "state_dir", read_path, None, "all that the daemon keeps", "GPUQ_STATE_DIR", at_start=True
    ),
    Setting("socket", read_path, None, "where it answers", "GPUQ_SOCKET", at_start=True),
    Setting(
        "gpus",
        read_text,
        "nvml",
        "nvml, none, simulated ones like sim:4x24G, or a scenario: a file or scenario:shared-box",
        "GPUQ_GPUS",
        at_start=True,
    ),
    Setting(
        "cpu_slots", whole_number(1, 4096), None, "how many --gpus 0 jobs run at once, by --cpus"
    ),
    Setting("default_gpus", whole_number(0, 64), 1, "GPUs of a job that does not say"),
    Setting(
        "max_bypass",
        whole_number(0, 1000),
        10,
        "how often a waiting job may be overtaken where no time limit tells what that costs it",
    ),
    Setting(
        "start_rate",
        read_rate,
        None,
        "how many jobs may be started in what time: 5/s, 30/m",
        show=format_rate,
    ),
    Setting("grace", read_time, 10.0, "from TERM to KILL", show=show_time),
    Setting(
        "unkillable_after",
        read_time,
        60.0,
        "from KILL until what lives on is called unkillable",
        show=show_time,
    ),
    Setting(
        "shutdown_grace",
        read_time,
        60.0,
        "the longest grace when the machine shuts down",
        show=show_time,
    ),
    Setting(
        "inhibit_shutdown",
        one_of("none", "delay", "block"),
        "none",
        "keep the machine from shutting down while jobs run: none, delay or block",
    ),
    Setting(
        "cgroup",
        read_text,
        "auto",
        "where jobs get a control group: auto, none, or a directory",
        at_start=True,
    ),
    Setting(
        "scopes",
        one_of("auto", "none"),
        "auto",
        "may systemd hold jobs to --mem and --cpus: auto or none",
        at_start=True,
    ),
    Setting(
        "preempt_signal",
        read_signal,
        int(SIGTERM),
        "what a --preemptible job is sent to give way, unless it says what",
        show=show_signal,
    ),
    Setting(
        "preempt_after",
        read_time,
        60.0,
        "how long a --preemptible job runs before it gives way to anybody",
        show=show_time,
    ),
    Setting(
        "unknown_job_time",
        read_time,
        86400.0,
        "how long a job without a time limit is taken to run, before a reservation begins",
        show=show_time,
    ),
    Setting(
        "spool",
        read_bool,
        True,
        "files that a user drops into a folder of their own are jobs",
        show=show_bool,
    ),
    Setting("log_cap", read_size, 2**30, "the middle of a longer log is dropped", show=show_size),
    Setting(
        "keep_free",
        read_size,
        512 * 2**20,
        "disk space below which logs are cut shorter",
        show=show_size,
    ),
    Setting("keep_for", read_time, 30 * 86400.0, "how long logs are kept", show=show_time),
    Setting("keep_size", read_size, 10 * 2**30, "how much of logs is kept", show=show_size),
    Setting(
        "on_failure",
        read_on_failure,
        "continue",
        "what becomes of a group whose jobs fail: continue, or stop:N",
    ),
    Setting(
        "undo_for",
        read_time,
        3600.0,
        "how long a cancel in the queue can be undone",
        show=show_time,
    ),
)

_WHICH_GPUS = (
    Setting(
        "allow_gpus",
        read_list,
        (),
        "give out only these GPUs: index, UUID or bus id",
        show=show_list,
    ),
    Setting("deny_gpus", read_list, (), "never give out these GPUs", show=show_list),
    Setting("gpu_order", read_list, (), "which GPUs to give out first", show=show_list),
    Setting("reserve_idle", whole_number(0, 64), 0, "GPUs to leave to people outside gpuq"),
    Setting(
        "reserve_hours",
        read_hours,
        (),
        "when to leave them: mon-fri 09:00-18:00; always, unless said",
        show=format_hours,
    ),
)

_FREE = (
    Setting(
        "idle_memory",
        read_size,
        300 * 2**20,
        "memory over its own idle use up to which a GPU is free",
        show=show_size,
    ),
    Setting("idle_utilization", whole_number(1, 100), 10, "percent below which a GPU is free"),
    Setting(
        "calm_samples", whole_number(1, 1000), 3, "readings that have to find a GPU free again"
    ),
    Setting("calm_for", read_time, 3.0, "the time that they cover at least", show=show_time),
    Setting(
        "cooling",
        read_time,
        30.0,
        "how long the memory of an ended job may take to come back",
        show=show_time,
    ),
    Setting(
        "ignore_processes",
        read_list,
        ("Xorg", "Xwayland", "gnome-shell", "kwin_wayland", "kwin_x11", "plasmashell", "sddm"),
        "programs that do not make a GPU busy",
        show=show_list,
    ),
    Setting(
        "ignore_users", read_list, (), "users whose processes do not make it busy", show=show_list
    ),
)

_SHARING = (
    Setting("max_jobs_per_gpu", whole_number(1, 64), 8, "jobs that may share one GPU"),
    Setting(
        "headroom", read_size, 512 * 2**20, "GPU memory kept free when sharing", show=show_size
    ),
    Setting(
        "settle",
        read_time,
        15.0,
        "how long a job that starts may take to show what it uses",
        show=show_time,
    ),
    Setting(
        "enforce_gpu_memory",
        one_of(*OverMemory),
        "warn",
        "a job that uses more GPU memory than it asked for: off, warn or end",
    ),
    Setting(
        "soft_limits",
        read_bool,
        True,
        "tell torch and JAX how much memory a sharing job asked for",
        show=show_bool,
    ),
)

_FAULTS = (
    Setting(
        "idle_after",
        read_time,
        600.0,
        "a job that computes nothing for so long is flagged",
        show=show_time,
    ),
    Setting("idle_percent", whole_number(0, 100), 5, "utilisation below which it computes nothing"),
    Setting(
        "fast_failures", whole_number(1, 1000), 3, "quick failures in a row that get a GPU tested"
    ),
    Setting(
        "fast_failure_within",
        read_time,
        30.0,
        "how soon after its start a failure is quick",
        show=show_time,
    ),
    Setting(
        "strict_health",
        read_bool,
        False,
        "give nothing to a GPU that only warns of its health",
        show=show_bool,
    ),
)

_NOTICES = (
    Setting(
        "on_start",
        read_hook_setting,
        None,
        "done when any job starts, as its user: a command, or an address",
        show=shown_hook,
    ),
    Setting(
        "on_end",
        read_hook_setting,
        None,
        "done when any job has ended, as its user: a command, or an address",
        show=shown_hook,
    ),
    Setting(
        "on_gpu_problem",
        read_hook_setting,
        None,
        "done when a GPU is set aside, as the daemon: a command, or an address",
        show=shown_hook,
    ),
)

_METRICS = (
    Setting(
        "metrics_textfile",
        read_textfile,
        None,
        "a file for node_exporter that the metrics are written to: NAME.prom",
    ),
    Setting("metrics_every", read_interval, 15.0, "how often that is done", show=show_time),
)

_USERS = (
    Setting("admin_group", read_text, "gpuq-admin", "its members may change the jobs of everybody"),
    Setting(
        "allow_groups",
        read_list,
        (),
        "only their members are served; everybody, unless said",
        show=show_list,
    ),
    Setting("allow_root_jobs", read_bool, False, "root may submit jobs", show=show_bool),
    Setting(
        "visibility",
        one_of("all", "own"),
        "all",
        "whose commands, names and folders of jobs one sees: all or one's own",
    ),
    Setting(
        "max_queued_per_user",
        whole_number(0, 10**9),
        0,
        "jobs that one user may have in the queue; 0: any number",
    ),
    Setting(
        "max_running_per_user",
        whole_number(0, 10**6),
        0,
        "jobs of one user that run at a time; 0: any number",
    ),
    Setting(
        "max_gpus_per_user",
        whole_number(0, 1024),
        0,
        "GPUs that the jobs of one user hold at a time; 0: any number",
    ),
    Setting(
        "fair_share",
        read_bool,
        False,
        "at the same priority, who has had less of the GPUs goes first",
        show=show_bool,
    ),
    Setting(
        "fair_share_half_life",
        read_half_life,
        7 * 86400.0,
        "after so long what somebody has had counts half",
        show=show_time,
    ),
)

GROUPS = {
    "the daemon and its jobs": _DAEMON,
    "which GPUs, and which of them first": _WHICH_GPUS,
    "when a GPU is free": _FREE,
    "sharing a GPU": _SHARING,
    "jobs that do not use their GPU, and GPUs that fail": _FAULTS,
    "who is told": _NOTICES,
    "what monitoring reads": _METRICS,
    "several users on one machine": _USERS,
}
SETTINGS = tuple(setting for settings in GROUPS.values() for setting in settings)
