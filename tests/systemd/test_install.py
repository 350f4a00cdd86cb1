"""`gpuq daemon install --system` on a box with a real systemd, from nothing to serving and back."""

import json

import pytest

from tests.systemd.box import GPUQ_CLI, SERVICE, SOCKET, Box

INSTALL = (GPUQ_CLI, "daemon", "install", "--system")
UNINSTALL = (GPUQ_CLI, "daemon", "uninstall", "--system")


def test_it_refuses_an_interpreter_that_a_user_can_write(box: Box) -> None:
    own = "/home/alice/venv"
    box.run("python3", "-m", "venv", "--without-pip", own, user="alice")
    (packages,) = (box.root / own.lstrip("/")).glob("lib/python*/site-packages")
    (packages / "gpuq.pth").write_text(f"{box.site_packages()}\n")
    gpuq = (f"{own}/bin/python", "-c", "from gpuq.cli.main import main; main()")
    refused = box.run(*gpuq, "daemon", "install", "--system", fails=True)
    assert "/home/alice" in refused.stderr
    assert "/opt/gpuq" in refused.stderr
    assert not (box.root / "etc/systemd/system/gpuqd.service").exists()


def test_it_refuses_a_package_that_its_group_can_write(box: Box) -> None:
    package = box.root / box.site_packages().lstrip("/") / "gpuq"
    mode = package.stat().st_mode
    box.run("chgrp", "users", f"{box.site_packages()}/gpuq")
    package.chmod(mode | 0o020)
    try:
        refused = box.run(*INSTALL, fails=True)
    finally:
        package.chmod(mode)
        box.run("chgrp", "root", f"{box.site_packages()}/gpuq")
    assert f"{box.site_packages()}/gpuq" in refused.stderr


def test_a_user_may_not_install_it_for_everybody(box: Box) -> None:
    refused = box.run(*INSTALL, user="alice", fails=True)
    assert "root" in refused.stderr


def test_it_says_what_it_did_and_then_everybody_is_served(box: Box) -> None:
    said = box.run(*INSTALL).stdout
    written = (
        "systemd/system/gpuqd.service",
        "systemd/system/gpuqd.socket",
        "sysusers.d/gpuq.conf",
    )
    for file in written:
        assert f"wrote /etc/{file}" in said
        assert (box.root / "etc" / file).exists()
    assert "/run/gpuq/gpuq.sock" in said
    for unit in (SERVICE, SOCKET):
        seen = box.unit(unit, "ActiveState", "UnitFileState")
        assert seen == {"ActiveState": "active", "UnitFileState": "enabled"}
    assert box.daemon()["mode"] == "system"
    assert "/run/gpuq/gpuq.sock" in box.gpuq("ping", user="bob")


def test_systemd_finds_nothing_to_say_against_the_units(shared_box: Box) -> None:
    for unit in (SERVICE, SOCKET):
        found = shared_box.run("systemd-analyze", "verify", "--man=no", unit)
        assert found.stdout + found.stderr == ""


def test_the_state_is_open_to_root_alone_and_may_be_passed_through(shared_box: Box) -> None:
    state = shared_box.root / "var/lib/gpuq"
    assert state.stat().st_mode & 0o7777 == 0o711
    assert (state / "gpuq.db").stat().st_mode & 0o077 == 0
    shared_box.run("ls", "/var/lib/gpuq", user="alice", fails=True)


def test_a_second_install_is_safe_and_leaves_a_job_alone(shared_box: Box) -> None:
    job = shared_box.held("alice")
    shared_box.run(*INSTALL)
    shared_box.until_active()
    job.assert_untouched()
    job.assert_ends_with(4)


def test_it_serves_again_after_a_boot_without_anybody_asking(shared_box: Box) -> None:
    id = shared_box.submit("bob", "-g", "0", "true")
    shared_box.until_state(id, "ended")
    shared_box.power_off()
    shared_box.boot()
    shared_box.until_active()
    assert shared_box.job(id)["outcome"] == "succeeded"


def test_uninstalling_takes_the_units_away_and_keeps_the_data(shared_box: Box) -> None:
    id = shared_box.submit("bob", "-g", "0", "true")
    shared_box.until_state(id, "ended")
    said = shared_box.run(*UNINSTALL).stdout
    assert "/var/lib/gpuq" in said
    for unit in (SERVICE, SOCKET):
        assert shared_box.unit(unit, "LoadState")["LoadState"] == "not-found"
    assert (shared_box.root / "var/lib/gpuq/gpuq.db").exists()
    shared_box.run(*INSTALL)
    seen = json.loads(shared_box.gpuq("show", str(id), "--json", user="bob"))["jobs"]
    assert seen[0]["outcome"] == "succeeded"


@pytest.mark.parametrize("unit", [SERVICE, SOCKET])
def test_uninstalling_twice_does_no_harm(shared_box: Box, unit: str) -> None:
    shared_box.run(*UNINSTALL)
    shared_box.run(*UNINSTALL)
    assert shared_box.unit(unit, "ActiveState")["ActiveState"] == "inactive"
