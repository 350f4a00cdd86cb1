"""Every setting knows where it came from, and what is wrong says where it stands."""

import json
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from gpuq import config, paths
from gpuq.config import SETTINGS, Config, Setting, table
from gpuq.config.forms import whole_number
from gpuq.core.policy import Policy, Rate, WeekSpan
from gpuq.errors import UsageError

MIB = 2**20
HOOK = "https://hooks.example:8443"
WORKDAY = (WeekSpan(days=frozenset(range(5)), begin=9 * 60, end=18 * 60),)


def load(
    tmp_path: Path,
    text: str | None = None,
    flags: dict[str, Any] | None = None,
    mode: str = "user",
    **environ: str,
) -> Config:
    """The settings with this file in the user's default place and nothing else around."""
    if text is not None:
        (tmp_path / "gpuq").mkdir(exist_ok=True)
        (tmp_path / "gpuq" / "gpuq.toml").write_text(text)
    around = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)} | environ
    return config.load(flags or {}, around, mode=mode)


def origins(found: Config) -> dict[str, str]:
    return {name: origin for name, _, origin in found.settings()}


def shown(found: Config) -> dict[str, str]:
    return {name: value for name, value, _ in found.settings()}


# ─── the order ───────────────────────────────────────────────────────────────────────────────────


def test_without_anything_all_are_defaults(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert set(origins(found).values()) == {"default"}
    assert [name for name, _, _ in found.settings()] == [setting.name for setting in SETTINGS]
    assert found.state_dir == f"{tmp_path}/.local/state/gpuq"
    assert found.socket == f"{tmp_path}/.local/state/gpuq/gpuq.sock"
    assert found.config == f"{tmp_path}/gpuq/gpuq.toml"
    assert found.cpu_slots == len(os.sched_getaffinity(0))
    assert (found.gpus, found.default_gpus, found.max_jobs_per_gpu) == ("nvml", 1, 8)
    assert (found.max_bypass, found.grace, found.headroom) == (10, 10.0, 512 * MIB)
    assert (found.cgroup, found.unkillable_after, found.keep_for) == ("auto", 60.0, 30 * 86400.0)
    assert (found.soft_limits, found.enforce_gpu_memory) == (True, "warn")
    assert {"Xorg", "gnome-shell"} < set(found.ignore_processes)
    by_default = Policy(cpu_slots=found.cpu_slots, ignore_processes=found.ignore_processes)
    assert found.policy() == by_default, "what the core calls usual is the default"


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    text = 'gpus = "sim:1x1G"\n'
    variable = {"GPUQ_GPUS": "sim:2x2G"}
    flags = {"gpus": "sim:3x3G"}
    file = f"{tmp_path}/gpuq/gpuq.toml"
    for found, value, origin in (
        (load(tmp_path), "nvml", "default"),
        (load(tmp_path, text), "sim:1x1G", file),
        (load(tmp_path, text, **variable), "sim:2x2G", "GPUQ_GPUS"),
        (load(tmp_path, text, flags, **variable), "sim:3x3G", "--gpus"),
    ):
        assert (found.gpus, origins(found)["gpus"]) == (value, origin)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_can_be_a_flag(tmp_path: Path, setting: config.Setting) -> None:
    file = tmp_path / "there.prom"
    file.touch()
    words = {name: flag for name, _, flag, *_ in SAID}
    found = load(tmp_path, flags={setting.name: words.get(setting.name, str(file))})
    assert origins(found)[setting.name] == "--" + setting.name.replace("_", "-")


# (setting, in the file, as a flag, its value, where the core's policy has it)
SAID: list[tuple[str, str, str, Any, str | None]] = [
    ("gpus", '"sim:2x1G"', "sim:2x1G", "sim:2x1G", None),
    ("cpu_slots", "3", "3", 3, "cpu_slots"),
    ("default_gpus", "2", "2", 2, None),
    ("max_bypass", "0", "0", 0, "max_bypass"),
    ("start_rate", '"5/s"', "5/s", Rate(count=5, per_s=1.0), "start_rate"),
    ("grace", '"2m30s"', "2m30s", 150.0, None),
    ("unkillable_after", '"5m"', "300", 300.0, "unkillable_s"),
    ("shutdown_grace", '"5m"', "300", 300.0, None),
    ("inhibit_shutdown", '"delay"', "delay", "delay", None),
    ("cgroup", '"none"', "none", "none", None),
    ("scopes", '"none"', "none", "none", None),
    ("preempt_signal", '"USR1"', "10", 10, "preempt_signal"),
    ("preempt_after", '"5m"', "300", 300.0, "preempt_after_s"),
    ("unknown_job_time", '"12h"', "12h", 43200.0, "unknown_job_s"),
    ("spool", "false", "no", False, None),
    ("log_cap", '"100M"', "100M", 100 * MIB, None),
    ("keep_free", '"2G"', "2G", 2048 * MIB, None),
    ("keep_for", '"7d"', "7d", 7 * 86400.0, None),
    ("keep_size", '"50G"', "50G", 50 * 1024 * MIB, None),
    ("on_failure", '"stop:3"', "stop:3", "stop:3", None),
    ("undo_for", '"10m"', "10m", 600.0, None),
    ("allow_gpus", '[3, "GPU-8f2c"]', "3, GPU-8f2c", ("3", "GPU-8f2c"), "allow_gpus"),
    ("deny_gpus", '["0000:3b:00.0"]', "0000:3b:00.0", ("0000:3b:00.0",), "deny_gpus"),
    ("gpu_order", "[1, 0]", "1,0", ("1", "0"), "gpu_order"),
    ("reserve_idle", "2", "2", 2, "reserve_idle"),
    ("reserve_hours", '"mon-fri 09:00-18:00"', "mon-fri 9:00-18:00", WORKDAY, "reserve_hours"),
    ("idle_memory", '"1.5G"', "1536M", 1536 * MIB, "idle_memory_bytes"),
    ("idle_utilization", "20", "20", 20, "idle_utilization_percent"),
    ("calm_samples", "5", "5", 5, "calm_samples"),
    ("calm_for", '"8s"', "8", 8.0, "calm_s"),
    ("cooling", '"45s"', "45s", 45.0, "cooling_s"),
    ("ignore_processes", '["Xorg"]', "Xorg", ("Xorg",), "ignore_processes"),
    ("ignore_users", '["gdm", 118]', "gdm,118", ("gdm", "118"), "ignore_users"),
    ("max_jobs_per_gpu", "2", "2", 2, "max_jobs_per_gpu"),
    ("headroom", '"1.5G"', "1.5G", 1536 * MIB, "headroom_bytes"),
    ("settle", '"20s"', "20s", 20.0, "settle_s"),
    ("enforce_gpu_memory", '"end"', "end", "end", "over_memory"),
    ("soft_limits", "false", "no", False, None),
    ("idle_after", '"20m"', "20m", 1200.0, "idle_job_s"),
    ("idle_percent", "3", "3", 3, "idle_job_percent"),
    ("fast_failures", "4", "4", 4, "fast_failures"),
    ("fast_failure_within", '"1m"', "1m", 60.0, "fast_failure_s"),
    ("strict_health", "true", "yes", True, "strict_health"),
    ("on_start", '"https://hooks.example:8443"', *[HOOK] * 2, None),
    ("on_end", '"https://hooks.example:8443"', *[HOOK] * 2, None),
    ("on_gpu_problem", '"https://hooks.example:8443"', *[HOOK] * 2, None),
    ("metrics_every", '"1m"', "60", 60.0, None),
    ("admin_group", '"wheel"', "wheel", "wheel", None),
    ("allow_groups", '["lab", "guests"]', "lab,guests", ("lab", "guests"), None),
    ("allow_root_jobs", "true", "yes", True, None),
    ("visibility", '"own"', "own", "own", None),
    ("max_queued_per_user", "100", "100", 100, None),
    ("max_running_per_user", "8", "8", 8, "max_running_per_user"),
    ("max_gpus_per_user", "2", "2", 2, "max_gpus_per_user"),
    ("fair_share", "true", "yes", True, "fair_share"),
    ("fair_share_half_life", '"14d"', "14d", 14 * 86400.0, "fair_share_half_life_s"),
]


def test_all_settings_but_paths_are_tried_below() -> None:
    assert [name for name, *_ in SAID] == [one.name for one in SETTINGS if one.form != "PATH"]
    elsewhere = {"queues"}  # a table each, see test_queue_settings
    known = {field.name for field in fields(Policy)} - elsewhere
    assert {place for *_, place in SAID} == {None, *known}


@pytest.mark.parametrize(("name", "in_file", "as_flag", "value", "place"), SAID)
def test_a_setting_means_the_same_in_the_file_and_as_a_flag(
    tmp_path: Path, name: str, in_file: str, as_flag: str, value: Any, place: str | None
) -> None:
    usual = load(tmp_path)
    by_file = load(tmp_path, f"{name} = {in_file}\n")
    by_flag = load(tmp_path, "", {name: as_flag})
    assert origins(by_file)[name] == f"{tmp_path}/gpuq/gpuq.toml"
    assert shown(by_file)[name] == shown(by_flag)[name]
    for found in (by_file, by_flag):
        assert getattr(found, name) == value != getattr(usual, name)
        expected = usual.policy() if place is None else replace(usual.policy(), **{place: value})
        assert found.policy() == expected
    # And as `gpuq config` shows it, it can be written.
    assert getattr(load(tmp_path, "", {name: shown(by_file)[name]}), name) == value


@pytest.mark.parametrize(
    ("variable", "name"),
    [(setting.variable, setting.name) for setting in SETTINGS if setting.variable],
)
def test_some_can_be_in_the_environment(tmp_path: Path, variable: str, name: str) -> None:
    value = str(tmp_path / "x")
    Path(value).touch()
    found = config.load({}, {"HOME": str(tmp_path), variable: value})
    assert (getattr(found, name), origins(found)[name]) == (value, variable)


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    found = load(tmp_path, GPUQ_STATE_DIR="", GPUQ_GPUS="", GPUQ_CONFIG="", GPUQ_SOCKET="")
    assert set(origins(found).values()) == {"default"}


def test_all_that_a_file_says_is_taken(tmp_path: Path) -> None:
    text = """
    state_dir = "/data/gpuq"
    socket = "/data/gpuq.sock"
    gpus = "none"
    cpu_slots = 3
    default_gpus = 0
    max_jobs_per_gpu = 2
    max_bypass = 0
    headroom = "1.5G"
    deny_gpus = [3, "GPU-8f2c"]

    [top]
    colours = "few"
    """
    found = load(tmp_path, text)
    assert set(origins(found).values()) == {"default", f"{tmp_path}/gpuq/gpuq.toml"}
    assert (found.state_dir, found.socket) == ("/data/gpuq", "/data/gpuq.sock")
    assert (found.cpu_slots, found.max_jobs_per_gpu, found.headroom) == (3, 2, 1536 * MIB)
    assert (shown(found)["headroom"], shown(found)["deny_gpus"]) == ("1.5G", "3, GPU-8f2c")


def test_what_is_shown_can_be_written(tmp_path: Path) -> None:
    """The value as `gpuq config` shows it means the same where it is written into the file."""
    odd = """
        grace = "2m30s"
        keep_for = "7d"
        unkillable_after = "0.5"
        settle = "1234567"
        log_cap = "1.2345678G"
        headroom = "0.7K"
        keep_free = "1025K"
        reserve_hours = ["sat 10:00-14:00", "22:00-06:00"]
    """
    first = load(tmp_path, odd)
    words = shown(first)
    lengths = ("grace", "keep_for", "unkillable_after", "settle")
    assert [words[name] for name in lengths] == ["150s", "7d", "0.5s", "1234567s"]
    quoted = {"SIZE", "TIME", "LIST", "HOURS", "WORD", "TEXT", "RATE", "SIGNAL"}
    text = "".join(
        f"{one.name} = {json.dumps(words[one.name]) if one.form in quoted else words[one.name]}\n"
        for one in SETTINGS
        if one.form != "PATH"
    )
    again = load(tmp_path, text)
    assert shown(again) == words
    assert again.policy() == first.policy()
    assert (again.log_cap, again.keep_free) == (first.log_cap, first.keep_free)


def test_a_list_can_be_empty_in_several_ways(tmp_path: Path) -> None:
    for nothing in ("[]", '""', '"–"'):
        found = load(tmp_path, f"ignore_processes = {nothing}\nreserve_hours = {nothing}\n")
        assert (found.ignore_processes, found.reserve_hours) == ((), ())
    assert load(tmp_path, "", {"ignore_processes": ""}).ignore_processes == ()


def test_the_file_can_be_elsewhere(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("max_bypass = 3\n")
    by_flag = load(tmp_path, "max_bypass = 5\n", {"config": str(other)})
    by_variable = load(tmp_path, "max_bypass = 5\n", GPUQ_CONFIG=str(other))
    for found, origin in ((by_flag, "--config"), (by_variable, "GPUQ_CONFIG")):
        assert (found.max_bypass, origins(found)["max_bypass"]) == (3, str(other))
        assert origins(found)["config"] == origin


def test_the_socket_follows_the_state_directory(tmp_path: Path) -> None:
    """A second daemon needs no more than another directory, whatever the file says of the first."""
    text = f'state_dir = "{tmp_path}/first"\nsocket = "{tmp_path}/first.sock"\n'
    first = load(tmp_path, text)
    second = load(tmp_path, text, {"state_dir": f"{tmp_path}/second"})
    assert first.socket == f"{tmp_path}/first.sock"
    assert second.socket == f"{tmp_path}/second/gpuq.sock"
    assert origins(second)["socket"] == "default"


def test_a_path_in_a_file_does_not_depend_on_who_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'state_dir = "state"\nsocket = "../s"\n'
    for place in (tmp_path, Path("/")):
        monkeypatch.chdir(place)
        found = load(tmp_path, text)
        assert (found.state_dir, found.socket) == (f"{tmp_path}/gpuq/state", f"{tmp_path}/s")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load(tmp_path, 'state_dir = "~/s"\n').state_dir == f"{tmp_path}/home/s"


def test_a_path_in_a_flag_starts_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path, flags={"state_dir": "state"}).state_dir == f"{tmp_path}/state"


# ─── system mode ─────────────────────────────────────────────────────────────────────────────────


def test_the_machines_daemon_has_the_machines_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SYSTEM_CONFIG", str(tmp_path / "system.toml"))
    found = load(tmp_path, "max_bypass = 5\n", mode="system")
    assert (found.mode, found.state_dir) == ("system", paths.SYSTEM_STATE_DIR)
    assert (found.socket, found.config) == (paths.SYSTEM_SOCKET, str(tmp_path / "system.toml"))
    assert found.max_bypass == 10, "a user's file is not the machine's"
    (tmp_path / "system.toml").write_text("max_bypass = 2\n")
    assert load(tmp_path, mode="system").max_bypass == 2


def test_the_machines_daemon_heeds_no_users_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SYSTEM_CONFIG", str(tmp_path / "system.toml"))
    found = load(
        tmp_path,
        mode="system",
        GPUQ_STATE_DIR="/tmp/x",
        GPUQ_SOCKET="/tmp/y",
        GPUQ_GPUS="sim:4x24G",
        XDG_STATE_HOME="/tmp/z",
    )
    assert (found.state_dir, found.socket) == (paths.SYSTEM_STATE_DIR, paths.SYSTEM_SOCKET)
    assert found.gpus == "nvml"


# ─── beside a system daemon ──────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def system_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where its socket would be, or its unit: nothing is there yet, whatever this machine has."""
    place = tmp_path / "system"
    place.mkdir()
    monkeypatch.setattr(paths, "SYSTEM_SOCKET", str(place / "gpuq.sock"))
    monkeypatch.setattr(paths, "SYSTEM_UNITS", (str(place / "gpuqd.service"),))
    return place


@pytest.mark.parametrize("sign", ["gpuq.sock", "gpuqd.service"])
def test_a_users_daemon_beside_the_machines_has_no_gpus_unless_it_is_told_which(
    tmp_path: Path, system_daemon: Path, sign: str
) -> None:
    assert load(tmp_path).gpus == "nvml"
    (system_daemon / sign).touch()
    found = load(tmp_path)
    assert (found.gpus, found.origin("gpus")) == ("none", "default beside a system daemon")
    file = f"{tmp_path}/gpuq/gpuq.toml"
    for told, value, origin in (
        (load(tmp_path, flags={"gpus": "nvml:1"}), "nvml:1", "--gpus"),
        (load(tmp_path, GPUQ_GPUS="nvml"), "nvml", "GPUQ_GPUS"),
        (load(tmp_path, 'gpus = "nvml"\n'), "nvml", file),
    ):
        assert (told.gpus, told.origin("gpus")) == (value, origin)


@pytest.mark.parametrize("mode", ["system", "throwaway"])
def test_the_machines_own_daemon_has_its_gpus(
    tmp_path: Path, system_daemon: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(paths, "SYSTEM_CONFIG", str(tmp_path / "system.toml"))
    (system_daemon / "gpuq.sock").touch()
    found = load(tmp_path, mode=mode)
    assert (found.gpus, found.origin("gpus")) == ("nvml", "default")


# ─── what is wrong ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("max_bypas = 3", "no setting 'max_bypas'; did you mean max_bypass?"),
        ("statedir = '/x'", "no setting 'statedir'; did you mean state_dir?"),
        ("colour = 'red'", "no setting 'colour'; known are config, state_dir, "),
        ("config = '/x'", "no setting 'config'"),
        ("[gpu]\nx = 1", "no setting 'gpu'; did you mean gpus?"),
    ],
)
def test_an_unknown_setting_suggests_a_known_one(tmp_path: Path, line: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        load(tmp_path, line + "\n")
    assert f"{tmp_path}/gpuq/gpuq.toml: there is {hint}" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("cpu_slots", 0, "0 is not a whole number from 1 to 4096"),
        ("cpu_slots", -1, "-1 is not a whole number"),
        ("cpu_slots", 1.5, "1.5 is not a whole number"),
        ("cpu_slots", True, "True is not a whole number"),
        ("cpu_slots", "many", "'many' is not a whole number"),
        ("cpu_slots", "²", "'²' is not a whole number"),
        ("default_gpus", 65, "65 is not a whole number from 0 to 64"),
        ("max_jobs_per_gpu", 0, "0 is not a whole number from 1 to 64"),
        ("max_bypass", 1001, "1001 is not a whole number from 0 to 1000"),
        ("grace", "soon", "'soon' is no length of time"),
        ("grace", True, "'True' is no length of time"),
        ("unkillable_after", "never", "'never' is no length of time"),
        ("shutdown_grace", "long", "'long' is no length of time"),
        ("inhibit_shutdown", "always", "'always' is none of none, delay, block"),
        ("keep_for", "a month", "'a month' is no length of time"),
        ("log_cap", "much", "'much' is no size"),
        ("keep_size", 5, "'5' is no size"),
        ("cgroup", 1, "1 is not text"),
        ("headroom", 512, "'512' is no size: write it like 24G"),
        ("headroom", "1X", "'1X' is no size"),
        ("allow_gpus", 3, '3 is no list like [0, "GPU-8f2c"]'),
        ("allow_gpus", [1.5], "1.5 is neither a number nor a printable text without a comma"),
        ("deny_gpus", [True], "True is neither a number nor a printable text"),
        ("deny_gpus", ["a,b"], "'a,b' is neither a number nor a printable text without a comma"),
        ("gpu_order", [[0]], "[0] is neither a number nor a printable text"),
        ("ignore_processes", ["a\tb"], "'a\\tb' is neither a number nor a printable text"),
        ("ignore_users", [""], "'' is neither a number nor a printable text"),
        ("reserve_idle", -1, "-1 is not a whole number from 0 to 64"),
        ("reserve_hours", "all day", "'all day' is no time like mon-fri 09:00-18:00"),
        ("reserve_hours", 9, "9 is no time like mon-fri 09:00-18:00"),
        ("reserve_hours", [9], "[9] is no time like mon-fri 09:00-18:00"),
        ("reserve_hours", ["mon 09:00-25:00"], "'25:00' is no time of day"),
        ("idle_memory", "some", "'some' is no size"),
        ("idle_utilization", 101, "101 is not a whole number from 1 to 100"),
        ("calm_samples", 0, "0 is not a whole number from 1 to 1000"),
        ("calm_for", "-3s", "'-3s' is no length of time"),
        ("cooling", "100000d", "'100000d' is longer than gpuq will live"),
        ("settle", [], "'[]' is no length of time"),
        ("enforce_gpu_memory", "kill", "'kill' is none of off, warn, end"),
        ("enforce_gpu_memory", False, "False is none of off, warn, end"),
        ("soft_limits", "maybe", "'maybe' is neither true nor false"),
        ("soft_limits", 1, "1 is neither true nor false"),
        ("idle_after", "long", "'long' is no length of time"),
        ("idle_percent", "5%", "'5%' is not a whole number from 0 to 100"),
        ("fast_failures", 0, "0 is not a whole number from 1 to 1000"),
        ("fast_failure_within", "soon", "'soon' is no length of time"),
        ("strict_health", "on", "'on' is neither true nor false"),
        ("start_rate", "fast", "'fast' is no rate: write it like 5/s, 30/m or 2/10s"),
        ("start_rate", 5, "5 is no rate"),
        ("fair_share", "on", "'on' is neither true nor false"),
        ("fair_share_half_life", "0s", "'0s' is no half-life"),
        ("state_dir", "", "'' is no path"),
        ("socket", 5, "5 is no path"),
        ("gpus", 4, "4 is not text"),
    ],
)
def test_a_bad_value_names_the_place_where_it_stands(
    tmp_path: Path, name: str, value: Any, why: str
) -> None:
    written = json.dumps(value)  # which TOML reads as the same
    with pytest.raises(UsageError) as in_file:
        load(tmp_path, f"{name} = {written}\n")
    assert str(in_file.value).startswith(f"{tmp_path}/gpuq/gpuq.toml: {name}: {why}")
    with pytest.raises(UsageError) as in_flag:
        load(tmp_path, "", {name: value})
    assert str(in_flag.value).startswith(f"--{name.replace('_', '-')}: {why}")


def test_a_bad_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picky = Setting("picky", whole_number(1, 9), 1, "one to nine", "GPUQ_PICKY")
    monkeypatch.setattr(table, "SETTINGS", (*SETTINGS, picky))
    with pytest.raises(UsageError, match=r"^GPUQ_PICKY: 'ten' is not a whole number from 1 to 9$"):
        load(tmp_path, GPUQ_PICKY="ten")


@pytest.mark.parametrize("text", ["max_bypass = \n", "= 3\n", "max_bypass = 1\nmax_bypass = 2\n"])
def test_bad_toml_names_file_and_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"gpuq\.toml: .*line \d"):
        load(tmp_path, text)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"gpus = '\xff'\n")
    with pytest.raises(UsageError, match=r"x\.toml: 'utf-8' codec"):
        load(tmp_path, flags={"config": str(file)})


def test_a_number_that_nobody_could_count_to_is_refused(tmp_path: Path) -> None:
    digits = "9" * 5000
    with pytest.raises(UsageError, match=r"gpuq\.toml: a number in it has thousands of digits"):
        load(tmp_path, f"deny_gpus = [{digits}]\n")
    for text in (f'deny_gpus = "{digits}"', f'deny_gpus = ["{digits}"]'):
        with pytest.raises(
            UsageError, match=r"gpuq\.toml: deny_gpus: 9+… is longer than 200 signs$"
        ):
            load(tmp_path, text)
    with pytest.raises(UsageError, match=r"^--deny-gpus: 9+… is longer than 200 signs$"):
        load(tmp_path, "", {"deny_gpus": digits})


def test_nobody_waits_for_a_pipe_to_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "gpuq").mkdir()
    file = tmp_path / "gpuq" / "gpuq.toml"
    os.mkfifo(file)
    wanted = rf"^cannot read the config file {file}: it is a pipe or a device\. Put"
    with pytest.raises(UsageError, match=wanted):
        load(tmp_path)
    assert config.peek(str(file)) == {}
    with pytest.raises(UsageError, match=r"config file /dev/full: it is a pipe or a device"):
        load(tmp_path, flags={"config": "/dev/full"})


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the config file /no/where: No such file"):
        load(tmp_path, flags={"config": "/no/where"})
    with pytest.raises(UsageError, match=r"cannot read the config file /no/where: No such file"):
        load(tmp_path, GPUQ_CONFIG="/no/where")


def test_there_is_no_setting_that_nobody_made() -> None:
    with pytest.raises(AttributeError):
        config.load({}, {}).colour  # noqa: B018, looking is enough


def test_a_file_that_nobody_may_read_is_not_taken_for_absent(
    tmp_path: Path,
) -> None:
    """A default file that is not there is nothing; one that cannot be seen may say anything."""
    (tmp_path / "gpuq").mkdir()
    (tmp_path / "gpuq" / "gpuq.toml").symlink_to("gpuq.toml")  # round and round
    with pytest.raises(UsageError, match=r"cannot read the config file .*: Too many levels"):
        load(tmp_path)


# ─── what a changed file changes ─────────────────────────────────────────────────────────────────


def changed(tmp_path: Path, before: Config, text: str) -> list[tuple[str, str, str]]:
    """Takes over what the file says now; (name, before, after) of each change."""
    (tmp_path / "gpuq").mkdir(exist_ok=True)
    (tmp_path / "gpuq" / "gpuq.toml").write_text(text)
    return [(one.name, one.before, one.after) for one in before.take_over(before.read_again())]


def test_what_the_file_says_is_taken_over_in_place(tmp_path: Path) -> None:
    found = load(tmp_path, "max_bypass = 3\n")
    policy = found.policy()
    assert found.policy() is policy, "it is asked for at every turn"
    said = changed(tmp_path, found, 'max_bypass = 4\ndeny_gpus = [3]\ngrace = "1m"\n')
    assert said == [("max_bypass", "3", "4"), ("grace", "10s", "60s"), ("deny_gpus", "–", "3")]
    assert found.policy() == replace(policy, max_bypass=4, deny_gpus=("3",))
    assert (found.grace, found.origin("grace")) == (60.0, found.config)
    assert changed(tmp_path, found, 'max_bypass = 4\ndeny_gpus = [3]\ngrace = "1m"\n') == []


def test_without_the_file_all_is_as_it_would_be_without_it(tmp_path: Path) -> None:
    text = "max_bypass = 3\nmax_jobs_per_gpu = 2\n"
    found = load(tmp_path, text, {"max_bypass": "5"})
    assert (found.max_bypass, found.max_jobs_per_gpu) == (5, 2)
    os.unlink(found.config)
    (one,) = found.take_over(found.read_again())
    assert (one.name, one.before, one.after) == ("max_jobs_per_gpu", "2", "8")
    assert (found.max_bypass, found.origin("max_bypass")) == (5, "--max-bypass")
    assert found.origin("max_jobs_per_gpu") == "default"


def test_a_flag_and_a_variable_are_stronger_than_a_changed_file(tmp_path: Path) -> None:
    found = load(tmp_path, "", {"grace": "5s"}, GPUQ_GPUS="sim:1x1G")
    assert changed(tmp_path, found, 'grace = "1m"\ngpus = "none"\n') == []
    assert (found.grace, found.gpus, found.pending, found.notes()) == (5.0, "sim:1x1G", (), [])


def test_what_takes_a_restart_stays_and_is_told(tmp_path: Path) -> None:
    found = load(tmp_path, 'gpus = "sim:1x1G"\n')
    text = 'gpus = "none"\ncgroup = "none"\nmax_bypass = 1\n'
    assert changed(tmp_path, found, text) == [("max_bypass", "10", "1")]
    assert (found.gpus, found.cgroup) == ("sim:1x1G", "auto")
    assert found.notes() == [
        "restart needed: gpus (now sim:1x1G, the file says none), "
        "cgroup (now auto, the file says none): gpuq daemon restart"
    ]
    assert changed(tmp_path, found, "") == [("max_bypass", "1", "10")]
    assert found.notes() == [
        "restart needed: gpus (now sim:1x1G, no longer in the file: nvml): gpuq daemon restart"
    ]
    assert changed(tmp_path, found, 'gpus = "sim:1x1G"\n') == []
    assert found.notes() == []


def test_a_socket_that_follows_the_state_directory_is_no_wish_of_its_own(tmp_path: Path) -> None:
    found = load(tmp_path)
    changed(tmp_path, found, 'state_dir = "/data/gpuq"\n')
    assert [one.name for one in found.pending] == ["state_dir"]


def test_gpus_that_were_kept_from_the_last_start_stay(tmp_path: Path) -> None:
    kept = load(tmp_path).having("gpus", "sim:1x1G", config.AS_LAST_STARTED)
    changed(tmp_path, kept, "max_bypass = 1\n")
    assert (kept.gpus, kept.origin("gpus")) == ("sim:1x1G", config.AS_LAST_STARTED)
    assert kept.notes() == []
    changed(tmp_path, kept, 'gpus = "none"\n')
    assert (kept.gpus, len(kept.notes())) == ("sim:1x1G", 1)


def test_a_file_is_read_again_where_it_was_though_the_process_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("max_bypass = 1\n")
    for given, environ in (
        ({"config": "mine.toml", "state_dir": "state"}, {}),
        ({}, {"GPUQ_CONFIG": "mine.toml", "GPUQ_STATE_DIR": "state"}),
    ):
        monkeypatch.chdir(tmp_path)
        found = config.load(given, environ | {"HOME": str(tmp_path)})
        monkeypatch.chdir("/")
        again = found.read_again()
        assert (again.max_bypass, again.state_dir) == (1, f"{tmp_path}/state")
        assert found.take_over(again) == []


def test_a_fault_is_told_until_the_file_can_be_read(tmp_path: Path) -> None:
    found = load(tmp_path, "max_bypass = 3\n")
    found.fault = "gpuq.toml: no"
    assert found.notes() == [
        "the file was changed and cannot be read: gpuq.toml: no; the settings before stay in force"
    ]
    assert changed(tmp_path, found, "max_bypass = 3\n") == []
    assert found.notes() == []


# ─── the page about them ─────────────────────────────────────────────────────────────────────────

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def row(setting: config.Setting) -> list[str]:
    """The line of a setting in the tables of the page; a default that follows from the machine is
    told in words there."""
    default = "" if setting.default is None else setting.show(setting.default)
    restart = "yes" if setting.at_start else "no"
    return [f"`{setting.name}`", setting.form, default, restart, setting.help]


def test_the_page_has_every_setting_as_the_table_has_it() -> None:
    text = PAGE.read_text()
    for title, settings in config.GROUPS.items():
        _, _, rest = text.partition(f"\n## {title[0].upper()}{title[1:]}\n")
        lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| `")]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        for found, setting in zip(cells, settings, strict=True):
            wanted = row(setting)
            assert wanted[2] or found[2], f"{setting.name} has no default in words"
            assert found == [*wanted[:2], wanted[2] or found[2], *wanted[3:]]


def test_the_example_of_the_page_is_a_file_that_can_be_read(tmp_path: Path) -> None:
    _, _, rest = PAGE.read_text().partition("```toml\n")
    found = load(tmp_path, rest.partition("```")[0])
    changed_ones = [name for name, origin in origins(found).items() if origin != "default"]
    assert len(changed_ones) == 8
    assert (found.deny_gpus, found.reserve_hours) == (("7",), WORKDAY)


def test_values_may_be_written_as_the_page_says(tmp_path: Path) -> None:
    forms = {"SIZE": "headroom", "TIME": "grace", "N": "max_bypass", "BOOL": "soft_limits"}
    forms |= {"RATE": "start_rate", "LIST": "deny_gpus", "HOURS": "reserve_hours"}
    forms |= {"TEXT, WORD": "cgroup"}
    for form, name in forms.items():
        (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {form} |")]
        _, in_file, as_flag = line.strip("|").split("|")
        for value in re.findall("`([^`]+)`", in_file):
            assert load(tmp_path, f"{name} = {value}\n").origin(name) != "default"
        for value in re.findall("`([^`]+)`", as_flag):
            assert load(tmp_path, "", {name: value}).origin(name) != "default"


def test_dev_null_is_a_file_that_says_nothing() -> None:
    assert config.read_file("/dev/null") == {}
