"""A daemon of one's own as a user service that lingers: on a box without one for everybody."""

import pytest

from tests.conftest import until
from tests.systemd.box import SERVICE, UNTIL_TOLD, Box

STATE = "/home/alice/.local/state/gpuq"


@pytest.fixture(scope="module")
def lingering(box: Box) -> Box:
    """Alice may have services that run while she is not logged in."""
    box.run("loginctl", "enable-linger", "alice")
    until(lambda: box.inside(f"{runtime(box)}/systemd/private").exists(), "alice's systemd")
    return box


def runtime(box: Box) -> str:
    return f"/run/user/{box.says('id', '-u', 'alice')}"


def as_alice(box: Box, *words: str) -> str:
    return box.run(
        *words, user="alice", environment=[f"XDG_RUNTIME_DIR={runtime(box)}"]
    ).stdout.strip()


def test_install_user_says_what_it_did_and_serves(lingering: Box) -> None:
    lingering.write("/home/alice/.config/gpuq/gpuq.toml", 'gpus = "sim:1x24G"\n')
    lingering.run("chown", "-R", "alice:", "/home/alice/.config")
    said = as_alice(lingering, "gpuq", "daemon", "install", "--user")
    for done in (".config/systemd/user/gpuqd.service", ".config/systemd/user/gpuqd.socket"):
        assert f"wrote /home/alice/{done}" in said
    state = as_alice(lingering, "systemctl", "--user", "is-active", "gpuqd.service", "gpuqd.socket")
    assert state.split() == ["active", "active"]
    assert f"{STATE}/gpuq.sock" in as_alice(lingering, "gpuq", "ping")


def test_its_jobs_survive_its_restart(lingering: Box) -> None:
    told = "/home/alice/told"
    id = int(as_alice(lingering, "gpuq", "submit", "--", "sh", "-c", UNTIL_TOLD, told))
    until(lambda: "running" in as_alice(lingering, "gpuq", "show", str(id)), "the job")
    pid = pid_of(lingering, id)
    as_alice(lingering, "systemctl", "--user", "restart", SERVICE)
    assert pid_of(lingering, id) == pid
    assert lingering.alive(int(pid))
    lingering.run("sh", "-c", f"echo 7 >{told}", user="alice")
    waited = lingering.run("gpuq", "wait", str(id), user="alice", fails=True)
    assert waited.returncode == 7


def pid_of(box: Box, id: int) -> str:
    lines = as_alice(box, "gpuq", "show", str(id)).splitlines()
    return dict(line.split("\t", 1) for line in lines)["pid"]


def test_it_serves_after_a_boot_though_alice_has_not_logged_in(lingering: Box) -> None:
    lingering.power_off()
    lingering.boot()
    until(lambda: lingering.inside(f"{STATE}/gpuq.sock").exists(), "her socket")
    id = int(lingering.gpuq("submit", "true", user="alice"))
    lingering.gpuq("wait", str(id), user="alice")


def test_a_user_who_may_not_linger_is_told_why_and_gets_no_service(lingering: Box) -> None:
    refused = lingering.run("gpuq", "daemon", "install", "--user", user="bob", fails=True)
    assert "log out" in refused.stderr
    assert "sudo loginctl enable-linger bob" in refused.stderr
    assert not (lingering.root / "home/bob/.config/systemd").exists()


def test_uninstall_user_takes_the_units_away_and_keeps_the_data(lingering: Box) -> None:
    until(lambda: lingering.inside(f"{runtime(lingering)}/systemd/private").exists(), "systemd")
    as_alice(lingering, "gpuq", "daemon", "uninstall", "--user")
    left = lingering.run(
        *("systemctl", "--user", "cat", SERVICE),
        user="alice",
        environment=[f"XDG_RUNTIME_DIR={runtime(lingering)}"],
        fails=True,
    )
    assert "No files found" in left.stderr
    assert (lingering.root / STATE.lstrip("/") / "gpuq.db").exists()
