"""Every setting knows where it came from, and what is wrong says where it stands."""

import os
from pathlib import Path
from typing import Any

import pytest

from gpuq import config, paths
from gpuq.config import SETTINGS, Config
from gpuq.core.model import Policy
from gpuq.errors import UsageError

MIB = 2**20


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
    assert found.policy() == Policy(cpu_slots=found.cpu_slots)


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
    file = tmp_path / "there"
    file.touch()
    words = {"config": str(file), "state_dir": "/a", "socket": "/b", "gpus": "none"}
    words |= {"grace": "90s", "unkillable_after": "2m", "keep_for": "7d"}
    words |= dict.fromkeys(("headroom", "log_cap", "keep_free", "keep_size"), "1G")
    found = load(tmp_path, flags={setting.name: words.get(setting.name, "7")})
    assert origins(found)[setting.name] == "--" + setting.name.replace("_", "-")


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
    grace = "2m30s"
    unkillable_after = "5m"
    cgroup = "none"
    log_cap = "100M"
    keep_free = "2G"
    keep_for = "7d"
    keep_size = "50G"
    headroom = "1.5G"

    [top]
    colours = "few"
    """
    found = load(tmp_path, text)
    assert set(origins(found).values()) == {"default", f"{tmp_path}/gpuq/gpuq.toml"}
    assert (found.state_dir, found.socket) == ("/data/gpuq", "/data/gpuq.sock")
    assert found.grace == 150.0
    assert found.policy() == Policy(
        cpu_slots=3,
        max_jobs_per_gpu=2,
        max_bypass=0,
        headroom_bytes=1536 * MIB,
        unkillable_s=300.0,
    )
    assert (found.cgroup, found.log_cap, found.keep_free) == ("none", 100 * MIB, 2048 * MIB)
    assert (found.keep_for, found.keep_size) == (7 * 86400.0, 50 * 1024 * MIB)
    assert (shown(found)["grace"], shown(found)["headroom"]) == ("150s", "1.5G")


def test_what_is_shown_can_be_written(tmp_path: Path) -> None:
    """The value as `gpuq config` shows it means the same where it is written into the file."""
    first = load(tmp_path, 'grace = "2m30s"\nkeep_for = "7d"\nunkillable_after = "0.5"\n')
    lengths = ("grace", "keep_for", "unkillable_after")
    assert [shown(first)[name] for name in lengths] == ["150s", "7d", "0.5s"]
    words = shown(first)
    sizes = ("log_cap", "keep_free", "keep_size", "headroom")
    text = "".join(f'{name} = "{words[name]}"\n' for name in (*lengths, *sizes))
    again = load(tmp_path, text)
    assert shown(again) == words


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
        ("cpu_slots", "²", "invalid literal"),
        ("default_gpus", 65, "65 is not a whole number from 0 to 64"),
        ("max_jobs_per_gpu", 0, "0 is not a whole number from 1 to 64"),
        ("max_bypass", 1001, "1001 is not a whole number from 0 to 1000"),
        ("grace", "soon", "'soon' is no length of time"),
        ("grace", True, "'True' is no length of time"),
        ("unkillable_after", "never", "'never' is no length of time"),
        ("keep_for", "a month", "'a month' is no length of time"),
        ("log_cap", "much", "'much' is no size"),
        ("keep_size", 5, "'5' is no size"),
        ("cgroup", 1, "1 is not text"),
        ("headroom", 512, "'512' is no size: write it like 24G"),
        ("headroom", "1X", "'1X' is no size"),
        ("state_dir", "", "'' is no path"),
        ("socket", 5, "5 is no path"),
        ("gpus", 4, "4 is not text"),
    ],
)
def test_a_bad_value_names_the_place_where_it_stands(
    tmp_path: Path, name: str, value: Any, why: str
) -> None:
    written = str(value).lower() if isinstance(value, bool) else repr(value)
    with pytest.raises(UsageError) as in_file:
        load(tmp_path, f"{name} = {written}\n")
    assert str(in_file.value).startswith(f"{tmp_path}/gpuq/gpuq.toml: {name}: {why}")
    with pytest.raises(UsageError) as in_flag:
        load(tmp_path, "", {name: value})
    assert str(in_flag.value).startswith(f"--{name.replace('_', '-')}: {why}")


def test_a_bad_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picky = config.Setting("picky", config._whole(1, 9), 1, "one to nine", "GPUQ_PICKY")
    monkeypatch.setattr(config, "SETTINGS", (*SETTINGS, picky))
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


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the config file /no/where: No such file"):
        load(tmp_path, flags={"config": "/no/where"})
    with pytest.raises(UsageError, match=r"cannot read the config file /no/where: No such file"):
        load(tmp_path, GPUQ_CONFIG="/no/where")


def test_there_is_no_setting_that_nobody_made() -> None:
    with pytest.raises(AttributeError):
        config.load({}, {}).colour  # noqa: B018, looking is enough
