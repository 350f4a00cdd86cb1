"""Where things are by default, and which daemon a client means."""

import os
import subprocess
from pathlib import Path

import pytest

from gpuq import config, locate, paths

USER = 1000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a daemon of its own, and a user who has set nothing."""
    for name in list(os.environ):
        if name.startswith(("GPUQ_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(paths, "SYSTEM_SOCKET", str(tmp_path / "run.sock"))
    monkeypatch.setattr(paths, "SYSTEM_UNITS", (str(tmp_path / "gpuqd.service"),))
    return tmp_path


# ─── the state directory ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environ", "state", "config"),
    [
        ({"HOME": "/h"}, "/h/.local/state/gpuq", "/h/.config/gpuq/gpuq.toml"),
        (
            {"HOME": "/h", "XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c"},
            "/s/gpuq",
            "/c/gpuq/gpuq.toml",
        ),
        (  # "All paths must be absolute. […] consider the path invalid and ignore it."
            {"HOME": "/h", "XDG_STATE_HOME": "s", "XDG_CONFIG_HOME": "./c"},
            "/h/.local/state/gpuq",
            "/h/.config/gpuq/gpuq.toml",
        ),
        (
            {"HOME": "/h", "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": ""},
            "/h/.local/state/gpuq",
            "/h/.config/gpuq/gpuq.toml",
        ),
    ],
)
def test_places_follow_the_xdg_rules(environ: dict[str, str], state: str, config: str) -> None:
    assert paths.default_state_dir(environ, USER) == state
    assert paths.default_config(environ) == config


def test_without_a_home_the_password_file_knows_it() -> None:
    assert paths.default_state_dir({}, USER).endswith("/.local/state/gpuq")


@pytest.mark.parametrize("kind", sorted(paths.NETWORK_FILE_SYSTEMS))
def test_on_a_network_home_the_state_is_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    asked: list[str] = []

    def file_system_of(path: str) -> str:
        asked.append(path)
        return kind

    monkeypatch.setattr(paths, "file_system_of", file_system_of)
    assert paths.default_state_dir({"HOME": "/h"}, USER) == "/var/tmp/gpuq-1000"
    assert paths.default_state_dir({"XDG_STATE_HOME": "/s"}, USER) == "/var/tmp/gpuq-1000"
    assert asked == ["/h/.local/state", "/s"]


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", ""])
def test_on_a_disk_of_this_machine_it_is_at_home(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(paths, "file_system_of", lambda path: kind)
    assert paths.default_state_dir({"HOME": "/h"}, USER) == "/h/.local/state/gpuq"


def test_a_file_system_is_known_by_its_longest_mount(home: Path) -> None:
    assert paths.file_system_of("/proc/self/fd") == "proc"
    assert paths.file_system_of("/proc/no/such/thing") == "proc"
    assert paths.file_system_of("/processes") == paths.file_system_of("/")
    (home / "link").symlink_to("/proc")
    assert paths.file_system_of(str(home / "link" / "x")) == "proc"


def test_a_mount_with_a_space_in_its_name_is_found(home: Path) -> None:
    folder = home / "a place"
    folder.mkdir()
    mount = ["mount", "-t", "ramfs", "gpuq-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: nothing may be mounted here (needs root)")
    try:
        assert paths.file_system_of(str(folder / "x")) == "ramfs"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


# ─── which daemon is meant ───────────────────────────────────────────────────────────────────────


def test_what_is_given_comes_first_then_the_file_the_machine_and_ones_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step adds what is weaker than all that was there; the one before still wins."""
    own = locate.locate()
    assert (own.socket, own.origin) == (
        f"{home}/.local/state/gpuq/gpuq.sock",
        "your own daemon's default place",
    )
    assert own.may_start

    (home / "gpuqd.service").touch()
    machine = locate.locate()
    assert (machine.socket, machine.state_dir) == (paths.SYSTEM_SOCKET, None)
    assert not machine.may_start

    file = home / ".config" / "gpuq" / "gpuq.toml"
    file.parent.mkdir(parents=True)
    file.write_text("state_dir = '/from/file'\n")
    assert (locate.locate().socket, locate.locate().origin) == ("/from/file/gpuq.sock", str(file))
    assert locate.locate().may_start
    file.write_text("state_dir = '/from/file'\nsocket = '/file.sock'\n")
    assert (locate.locate().socket, locate.locate().origin) == ("/file.sock", str(file))
    assert not locate.locate().may_start

    monkeypatch.setenv("GPUQ_STATE_DIR", "/from/environment")
    assert locate.locate().socket == "/from/environment/gpuq.sock"
    assert (locate.locate().origin, locate.locate().may_start) == ("GPUQ_STATE_DIR", True)
    monkeypatch.setenv("GPUQ_SOCKET", "/environment.sock")
    assert (locate.locate().socket, locate.locate().origin) == ("/environment.sock", "GPUQ_SOCKET")
    assert not locate.locate().may_start

    by_state_dir = locate.locate(state_dir="/from/flag")
    assert (by_state_dir.socket, by_state_dir.origin) == ("/from/flag/gpuq.sock", "--state-dir")
    by_socket = locate.locate(socket="/flag.sock", state_dir="/from/flag")
    assert (by_socket.socket, by_socket.origin) == ("/flag.sock", "--socket")
    assert (by_socket.state_dir, by_socket.may_start) == ("/from/flag", False)


def test_the_machines_daemon_is_meant_where_its_socket_is(home: Path) -> None:
    (home / "run.sock").touch()
    assert locate.locate().origin == "the machine's daemon"


def test_relative_paths_start_where_one_stands(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert locate.locate(socket="s").socket == f"{home}/s"
    assert locate.locate(state_dir="d").socket == f"{home}/d/gpuq.sock"


def test_nothing_is_started_where_that_is_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUQ_AUTOSTART", "0")
    assert not locate.locate().may_start
    assert not locate.locate(state_dir="/x").may_start


def test_a_job_starts_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUQ_JOB_ID", "7")
    assert not locate.locate().may_start


def test_a_mistake_in_the_config_file_keeps_nobody_from_a_daemon_that_runs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "x.toml"
    monkeypatch.setenv("GPUQ_CONFIG", str(file))
    file.write_text("state_dir = '/x'\ncolour = 'red'\ngrace = 'soon'\n")
    assert locate.locate().socket == "/x/gpuq.sock"
    file.write_text("state_dir = \n")
    assert locate.locate().origin == "your own daemon's default place"


def test_client_and_daemon_mean_the_same_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / "x.toml"
    file.write_text("state_dir = 'here'\n")
    for name, value in (
        ("GPUQ_CONFIG", str(file)),
        ("GPUQ_STATE_DIR", str(home / "there")),
        ("GPUQ_SOCKET", str(home / "s")),
    ):
        monkeypatch.setenv(name, value)
        for state_dir in (None, str(home / "flag")):
            daemon = config.load({"state_dir": state_dir}, os.environ)
            assert locate.locate(state_dir=state_dir).socket == daemon.socket, (name, state_dir)
