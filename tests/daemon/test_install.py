"""`gpuqd install` and `uninstall` on a machine in a folder: the files are real, systemd is not."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpuq import paths, service
from gpuq.config import load
from gpuq.daemon.systemd import install, site, trust, uninstall
from gpuq.daemon.systemd.faces import Faces, faces_of
from gpuq.daemon.systemd.install import Install
from gpuq.daemon.systemd.places import Places, system_places, user_places
from gpuq.daemon.systemd.site import Site
from gpuq.daemon.systemd.steps import MARK
from gpuq.daemon.systemd.trust import Breach, Installation
from gpuq.errors import DaemonUnreachable, GpuqError, UsageError
from gpuq.service import Service
from tests.cli.said import FakeDaemon
from tests.conftest import BIN
from tests.fake_systemd import FakeSystemd

FACES = Faces(
    scripts={"bash": "complete gpuq\n", "zsh": "#compdef gpuq\n", "fish": "complete -c gpuq\n"},
    pages={"man1/gpuq.1": '.TH "GPUQ" "1"\n', "man8/gpuqd.8": '.TH "GPUQD" "8"\n'},
)
PONG = {
    "version": "0.1.0",
    "pid": 4711,
    "gpus": 4,
    "gpu_backend": "sim:4x24G",
    "gpu_trouble": None,
    "counts": {"running": 0, "queued": 0},
}


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    return FakeSystemd(tmp_path / "tools", monkeypatch)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    there = FakeDaemon(tmp_path)
    there.answers |= {"ping": PONG, "stop": DaemonUnreachable("it hangs")}
    yield there
    there.close()


class Machine:
    """Where things go, what was said, and the deeds."""

    def __init__(self, root: Path, places: Places, fake: FakeDaemon, *, is_system: bool) -> None:
        self.root = root
        self.said: list[str] = []
        self.site = Site(
            service=Service(is_system=is_system),
            places=places,
            socket=fake.path,
            state_dir=str(root / "state"),
            config=str(root / "gpuq.toml"),
            flags=() if is_system else ("--state-dir", str(root / "state")),
            say=self.said.append,
        )
        self.installation = Installation(
            python="/opt/gpuq/bin/python3",
            version="0.1.0",
            package="/opt/gpuq/lib/gpuq",
            prefixes=("/opt/gpuq",),
            imports=("/opt/gpuq/lib",),
            commands="/opt/gpuq/bin",
        )

    def install(self, **how: bool) -> None:
        self.said.clear()
        Install(self.site, self.installation, FACES, **how).carry_out()

    def uninstall(self, **how: bool) -> None:
        self.said.clear()
        uninstall.uninstall(self.site, **({"dry_run": False} | how))

    def files(self) -> set[str]:
        """What lies on the machine, below its root."""
        return {
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }

    def unit(self, name: str = service.SERVICE) -> Path:
        return Path(self.site.places.unit_file(name))


@pytest.fixture
def box(tmp_path: Path, systemd: FakeSystemd, fake: FakeDaemon) -> Machine:
    root = tmp_path / "root"
    root.mkdir()
    return Machine(root, system_places(str(root)), fake, is_system=True)


@pytest.fixture
def ann(tmp_path: Path, systemd: FakeSystemd, fake: FakeDaemon) -> Machine:
    home = tmp_path / "home"
    home.mkdir()
    return Machine(home, user_places({"HOME": str(home)}), fake, is_system=False)


# ── for the whole machine ──


def test_a_fresh_machine_gets_units_group_folders_completions_pages_and_commands(
    box: Machine, systemd: FakeSystemd
) -> None:
    box.install()
    assert box.files() == {
        "etc/systemd/system/gpuqd.service",
        "etc/systemd/system/gpuqd.socket",
        "etc/sysusers.d/gpuq.conf",
        "etc/tmpfiles.d/gpuq.conf",
        "usr/local/bin/gpuq",
        "usr/local/bin/gpuqd",
        "usr/local/share/bash-completion/completions/gpuq",
        "usr/local/share/zsh/site-functions/_gpuq",
        "usr/local/share/fish/vendor_completions.d/gpuq.fish",
        "usr/local/share/man/man1/gpuq.1",
        "usr/local/share/man/man8/gpuqd.8",
    }
    etc = box.root / "etc"
    assert systemd.calls == [
        f"systemd-sysusers {etc}/sysusers.d/gpuq.conf",
        f"systemd-tmpfiles --create {etc}/tmpfiles.d/gpuq.conf",
        "systemctl daemon-reload",
        "systemctl enable gpuqd.socket gpuqd.service",
        "systemctl reset-failed gpuqd.socket gpuqd.service",
        "systemctl start gpuqd.socket gpuqd.service",
    ]
    assert (
        "ExecStart=/opt/gpuq/bin/python3 -I -m gpuq.daemon.main --system" in box.unit().read_text()
    )
    assert os.readlink(box.root / "usr/local/bin/gpuq") == "/opt/gpuq/bin/gpuq"


def test_it_says_each_thing_that_it_does_and_what_to_do_next(box: Machine) -> None:
    box.install()
    for path in box.files():
        assert sum(line.split()[1:2] == [str(box.root / path)] for line in box.said) == 1
    assert any("answers at" in line and "4 GPUs (sim:4x24G)" in line for line in box.said)
    assert "next: who is to be an admin of the queue: usermod -aG gpuq-admin NAME" in box.said


def test_everybody_may_read_what_is_installed_whatever_the_umask_of_root(box: Machine) -> None:
    before = os.umask(0o077)
    try:
        box.install()
    finally:
        os.umask(before)
    for path in box.files():
        assert stat.S_IMODE((box.root / path).lstat().st_mode) & 0o444 == 0o444


def test_what_zsh_reads_first_stays_first(box: Machine) -> None:
    box.install()
    lines = Path(box.site.places.completion("zsh")).read_text().splitlines()
    assert lines[0] == "#compdef gpuq"
    assert MARK in lines[-1]


def test_running_it_again_changes_nothing_but_restarts_the_daemon(
    box: Machine, systemd: FakeSystemd, fake: FakeDaemon
) -> None:
    box.install()
    before = {path: (box.root / path).lstat().st_ino for path in box.files() if "bin" not in path}
    systemd.forget()
    leaving = subprocess.Popen(["sleep", "60"])

    def leave(_: object) -> dict[str, int]:
        leaving.terminate()
        leaving.wait()
        return {"pid": leaving.pid}

    fake.answers["stop"] = leave
    box.install()
    assert {path: (box.root / path).lstat().st_ino for path in before} == before
    assert fake.requests("stop")[0]["restart"] is True
    assert "systemctl restart gpuqd.service" not in systemd.calls
    assert systemd.calls[-1] == "systemctl start gpuqd.socket gpuqd.service"
    assert "restarted gpuqd.service; jobs go on" in box.said


def test_a_daemon_that_does_not_answer_is_restarted_by_systemd(
    box: Machine, systemd: FakeSystemd
) -> None:
    box.install()
    systemd.forget()
    box.install()
    assert "systemctl restart gpuqd.service" in systemd.calls


def test_an_upgrade_into_another_folder_takes_over_units_and_links(box: Machine) -> None:
    box.install()
    box.installation = replace(
        box.installation, python="/opt/gpuq-2/bin/python3", commands="/opt/gpuq-2/bin"
    )
    box.install()
    assert "ExecStart=/opt/gpuq-2/bin/python3 " in box.unit().read_text()
    assert os.readlink(box.root / "usr/local/bin/gpuq") == "/opt/gpuq-2/bin/gpuq"


def test_a_socket_unit_that_changes_is_made_anew(box: Machine, systemd: FakeSystemd) -> None:
    box.install()
    box.unit(service.SOCKET).write_text(f"# {MARK} from /opt/gpuq/bin; an older one\n")
    systemd.forget()
    box.install()
    changing = [call for call in systemd.calls if "stop" in call or " start" in call]
    assert changing == [
        "systemctl stop gpuqd.socket gpuqd.service",
        "systemctl start gpuqd.socket gpuqd.service",
    ]


@pytest.mark.parametrize("name", ["gpuqd.service", "gpuq.sysusers.conf"])
def test_a_file_of_somebody_else_stops_it_before_anything_is_changed(
    box: Machine, systemd: FakeSystemd, name: str
) -> None:
    file = box.unit(name)
    file.parent.mkdir(parents=True)
    file.write_text("[Service]\nExecStart=/srv/ours\n")
    with pytest.raises(GpuqError, match=r"is not from gpuq daemon install. Move it away.* --force"):
        box.install()
    assert (len(box.files()), systemd.calls) == (1, [])
    box.install(force=True)
    assert MARK in file.read_text()


def test_a_masked_unit_stays_masked(box: Machine) -> None:
    box.unit().parent.mkdir(parents=True)
    box.unit().symlink_to("/dev/null")
    with pytest.raises(GpuqError, match="masks the unit"):
        box.install()
    assert os.readlink(box.unit()) == "/dev/null"


def test_a_command_of_somebody_else_is_left_alone_and_named(box: Machine) -> None:
    script, link = box.root / "usr/local/bin/gpuq", box.root / "usr/local/bin/gpuqd"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    link.symlink_to("/srv/other/gpuqd")
    box.install()
    for theirs in (script, link):
        assert any(line.startswith(f"left alone {theirs}:") for line in box.said)
    box.uninstall()
    assert (script.read_text(), os.readlink(link)) == ("#!/bin/sh\n", "/srv/other/gpuqd")


def test_a_dry_run_says_all_of_it_and_does_nothing(box: Machine, systemd: FakeSystemd) -> None:
    box.install(dry_run=True)
    assert (box.files(), systemd.calls) == (set(), [])
    would = [line for line in box.said if line.startswith("would ")]
    assert f"would write {box.unit()}" in would
    assert "would run systemctl daemon-reload: systemd reads the units" in would
    assert would[-1].endswith("nothing was changed")


@pytest.mark.parametrize("what", ["systemd-sysusers", "daemon-reload", "enable"])
def test_a_step_that_fails_says_which_and_why_and_going_on_is_safe(
    box: Machine, systemd: FakeSystemd, what: str
) -> None:
    systemd.fail(what)
    with pytest.raises(GpuqError) as told:
        box.install()
    message = str(told.value)
    assert message.startswith("could not run ")
    assert what in message
    assert "Access denied. What was done before" in message
    assert message.endswith("go on with: sudo gpuq daemon install --system")
    systemd.work()
    box.install()
    assert any("answers at" in line for line in box.said)


def test_a_daemon_that_systemd_cannot_start_points_to_the_journal(
    box: Machine, systemd: FakeSystemd
) -> None:
    systemd.fail("start gpuqd")
    with pytest.raises(DaemonUnreachable, match=r"Access denied. See: journalctl -u gpuqd -n 20"):
        box.install()


def test_a_file_is_whole_or_as_before_and_nothing_lies_beside_it(
    box: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.install()
    before = box.unit().read_text()
    box.installation = replace(box.installation, python="/opt/other/bin/python3")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GpuqError, match=f"could not write {box.unit()}: No space left"):
        box.install()
    assert box.unit().read_text() == before
    assert {path.name for path in box.unit().parent.iterdir()} == {service.SERVICE, service.SOCKET}


def test_without_room_for_links_and_completions_the_queue_works_all_the_same(
    box: Machine, systemd: FakeSystemd
) -> None:
    (box.root / "usr").mkdir()
    (box.root / "usr/local").write_text("in the way of all that goes below")
    box.install()
    assert (
        box.said.count(
            f"could not link {box.root}/usr/local/bin/gpuq to /opt/gpuq/bin/gpuq: Not a directory; "
            "it goes without: the commands are in /opt/gpuq/bin"
        )
        == 1
    )
    assert systemd.calls[-1] == "systemctl start gpuqd.socket gpuqd.service"


def test_what_cannot_even_be_looked_at_is_gone_without_too(box: Machine) -> None:
    man = box.root / "usr/local/share/man"
    man.parent.mkdir(parents=True)
    man.symlink_to("man")
    box.install()
    assert [line.partition(": ")[0] for line in box.said if "goes without" in line] == [
        f"could not write {man}/man1/gpuq.1",
        f"could not write {man}/man8/gpuqd.8",
    ]
    box.uninstall()
    assert box.files() == {"usr/local/share/man"}


# ── for one user ──


def test_a_user_gets_units_that_go_on_after_a_logout(ann: Machine, systemd: FakeSystemd) -> None:
    ann.install()
    assert ann.files() == {
        ".config/systemd/user/gpuqd.service",
        ".config/systemd/user/gpuqd.socket",
        ".config/fish/completions/gpuq.fish",
        ".local/share/bash-completion/completions/gpuq",
        ".local/share/zsh/site-functions/_gpuq",
        ".local/share/man/man1/gpuq.1",
        ".local/share/man/man8/gpuqd.8",
    }
    assert systemd.calls == [
        "loginctl --no-ask-password enable-linger",
        "systemctl --user daemon-reload",
        "systemctl --user enable gpuqd.socket gpuqd.service",
        "systemctl --user reset-failed gpuqd.socket gpuqd.service",
        "systemctl --user start gpuqd.socket gpuqd.service",
    ]
    assert f"gpuq.daemon.main --state-dir {ann.site.state_dir}\n" in ann.unit().read_text()


def test_without_lingering_nothing_is_installed_and_it_says_what_that_would_mean(
    ann: Machine, systemd: FakeSystemd
) -> None:
    systemd.fail("enable-linger")
    with pytest.raises(GpuqError) as told:
        ann.install()
    assert "would end your daemon and its jobs when you log out" in str(told.value)
    assert f"sudo loginctl enable-linger {service.own_name()}" in str(told.value)
    assert ann.files() == set()


def test_without_a_systemd_of_the_users_own_nothing_is_installed(
    ann: Machine, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ANSWER_S", 0.0)
    systemd.fail("--user show")
    with pytest.raises(GpuqError, match=r"no systemd runs for you .* or: gpuq daemon start"):
        ann.install()
    assert ann.files() == set()


def test_who_lingers_already_is_not_asked_again(ann: Machine, systemd: FakeSystemd) -> None:
    (systemd.folder / "linger" / service.own_name()).touch()
    ann.install()
    assert "kept lingering, by which your services go on when you log out" in ann.said
    assert not [call for call in systemd.calls if call.startswith("loginctl")]


def test_a_daemon_started_otherwise_is_asked_to_leave_first(
    ann: Machine, systemd: FakeSystemd, fake: FakeDaemon
) -> None:
    """It holds the lock of the state directory, and what it says in it tells who it is."""
    Path(ann.site.state_dir).mkdir()
    lock = Path(ann.site.state_dir) / paths.LOCK_NAME
    holding = f"import fcntl, sys\nf = open({str(lock)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n"
    holding += "print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdout.readline()
    lock.write_text(f"by gpuqd 0.1.0, pid {holder.pid}\n{fake.path}\n")

    def leave(_: object) -> dict[str, int]:
        holder.communicate()
        return {"pid": holder.pid}

    fake.answers["stop"] = leave
    ann.install()
    assert f"stopped the daemon that was started otherwise (pid {holder.pid}); its jobs go on" in (
        ann.said
    )
    assert fake.requests("stop")[0]["restart"] is True
    assert systemd.calls[-1].endswith("start gpuqd.socket gpuqd.service")


# ── away with it ──


def test_uninstall_leaves_the_machine_as_it_was(box: Machine, systemd: FakeSystemd) -> None:
    state = box.root / "state" / "gpuq.db"
    state.parent.mkdir()
    state.write_text("all jobs")
    box.install()
    systemd.forget()
    box.uninstall()
    assert box.files() == {"state/gpuq.db"}
    assert systemd.calls == [
        "systemctl stop gpuqd.socket gpuqd.service",
        "systemctl disable gpuqd.service gpuqd.socket",
        "systemctl daemon-reload",
        "systemctl reset-failed gpuqd.service gpuqd.socket",
    ]
    assert any(line.startswith(f"kept {state.parent}") and "rm -r" in line for line in box.said)


def test_uninstalling_twice_does_no_harm(box: Machine, systemd: FakeSystemd) -> None:
    box.install()
    box.uninstall()
    systemd.forget()
    box.uninstall()
    assert box.said == ["nothing to do: gpuq daemon install put nothing there (--system)"]
    assert systemd.calls == []


def test_uninstall_says_how_many_jobs_go_on_and_lets_followers_go(
    box: Machine, fake: FakeDaemon
) -> None:
    box.install()
    fake.answers["ping"] = PONG | {"counts": {"running": 2}}
    box.uninstall()
    assert box.said[0].startswith("2 jobs run and will go on;")
    assert "gpuq kill -s running --yes --wait" in box.said[0]
    assert fake.requests("stop")[0]["restart"] is False


def test_uninstall_touches_no_unit_of_somebody_else(box: Machine, systemd: FakeSystemd) -> None:
    box.unit().parent.mkdir(parents=True)
    box.unit().write_text("[Service]\nExecStart=/srv/ours\n")
    box.uninstall()
    assert (box.files(), systemd.calls) == ({"etc/systemd/system/gpuqd.service"}, [])
    assert box.said[0].startswith(f"left alone {box.unit()}")


def test_a_dry_uninstall_says_what_it_would_remove(box: Machine, systemd: FakeSystemd) -> None:
    box.install()
    before = box.files()
    systemd.forget()
    box.uninstall(dry_run=True)
    assert (box.files(), systemd.calls) == (before, [])
    assert f"would remove {box.unit()}" in box.said


def test_a_user_can_uninstall_where_systemd_is_gone(
    ann: Machine, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann.install()
    systemd.forget()
    monkeypatch.setattr(service, "BOOTED", "/no/such/place")
    ann.uninstall()
    assert (ann.files(), systemd.calls) == (set(), [])


# ── where it belongs ──


def test_without_systemd_it_says_what_to_do_instead(
    box: Machine, ann: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BOOTED", "/no/such/place")
    with pytest.raises(GpuqError, match=r"not run by systemd .* Start yours.*gpuq daemon start"):
        install.check_place(ann.site)
    monkeypatch.setattr(service, "is_root", lambda: True)
    with pytest.raises(GpuqError, match=r"not run by systemd .* Have gpuqd --system started"):
        install.check_place(box.site)
    monkeypatch.setattr(service, "is_root", lambda: False)
    with pytest.raises(GpuqError, match=r"only root may install .* gpuq daemon install --user"):
        install.check_place(box.site)


def test_the_machines_daemon_goes_by_its_file_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--state-dir: the machine's daemon goes by"):
        site.site_of(load({"state_dir": str(tmp_path)}, {}, mode="system"))
    found = site.site_of(load({}, {"GPUQ_STATE_DIR": str(tmp_path)}, mode="system"))
    assert (found.socket, found.flags) == (paths.SYSTEM_SOCKET, ())


def test_a_users_unit_does_not_hang_on_what_systemd_has_in_its_environment(tmp_path: Path) -> None:
    state = tmp_path / "state"
    given = {"GPUQ_STATE_DIR": str(state), "GPUQ_CONFIG": "/dev/null"}
    found = site.site_of(load({}, given))
    assert found.flags == ("--state-dir", str(state), "--config", "/dev/null")
    with pytest.raises(UsageError, match=r"at most 107 bytes. Give a shorter one"):
        site.site_of(load({"state_dir": f"/{'x' * 120}"}, {}))


# ── may root run it? ──

Spoil = Callable[[Path], None]


def make_installation(folder: Path) -> Installation:
    """/opt/gpuq in small: a virtual environment whose interpreter is a link to another."""
    venv, base = folder / "opt/gpuq", folder / "usr"
    for below in ("bin", "lib/site/gpuq/daemon", "lib/site/apsw"):
        (venv / below).mkdir(parents=True)
    (base / "lib").mkdir(parents=True)
    for file in ("lib/site/gpuq/__init__.py", "lib/site/gpuq/daemon/main.py", "pyvenv.cfg"):
        (venv / file).touch()
    for file in (venv / "lib/site/apsw/apsw.so", base / "python3.11", base / "lib/os.py"):
        file.touch()
    (venv / "bin/python3").symlink_to(base / "python3")
    (base / "python3").symlink_to("python3.11")
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    return Installation(
        python=str(venv / "bin/python3"),
        version="0.1.0",
        package=str(venv / "lib/site/gpuq"),
        prefixes=(str(venv), str(base)),
        imports=(str(venv / "lib/site"), str(base / "lib"), str(base / "lib/absent.zip")),
        commands=str(venv / "bin"),
    )


def found_in(folder: Path, installation: Installation) -> list[tuple[str, str]]:
    """Only what lies in the folder: those above it are of the machine that runs the test."""
    found = trust.breaches(installation, owner=os.getuid())
    inside = [one for one in found if one.path.startswith(str(folder))]
    return [(os.path.relpath(path, folder), why) for path, why in inside]


@pytest.mark.parametrize(
    ("path", "mode", "why"),
    [
        ("opt/gpuq/lib/site/gpuq/daemon/main.py", 0o666, "can be written by everybody"),
        ("opt/gpuq/lib/site/gpuq/daemon/main.py", 0o664, "can be written by its group"),
        ("opt/gpuq/lib/site/gpuq/daemon/main.py", 0o640, "cannot be read by users"),
        ("opt/gpuq/lib/site/apsw/apsw.so", 0o775, "can be written by its group"),
        ("opt/gpuq/lib/site", 0o775, "can be written by its group"),
        ("opt/gpuq/lib", 0o1777, "can be written by everybody"),
        ("opt/gpuq/pyvenv.cfg", 0o664, "can be written by its group"),
        ("opt/gpuq/bin", 0o775, "can be written by its group"),
        ("opt", 0o777, "can be written by everybody"),
        ("opt", 0o700, "is closed to users"),
        ("usr/python3.11", 0o775, "can be written by its group"),
        ("usr", 0o1777, "can be written by everybody"),
        ("usr", 0o750, "is closed to users"),
        ("usr/lib", 0o775, "can be written by its group"),
    ],
)
def test_what_somebody_else_can_write_or_users_cannot_reach_is_found(
    tmp_path: Path, path: str, mode: int, why: str
) -> None:
    installation = make_installation(tmp_path)
    assert found_in(tmp_path, installation) == []
    (tmp_path / path).chmod(mode)
    assert found_in(tmp_path, installation) == [(path, why)]


def test_a_link_is_followed_to_where_it_leads(tmp_path: Path) -> None:
    installation = make_installation(tmp_path)
    theirs = tmp_path / "home/ann"
    theirs.mkdir(parents=True)
    (theirs / "apsw.py").touch()
    theirs.chmod(0o777)
    (tmp_path / "opt/gpuq/lib/site/more").symlink_to("../../../../home/ann")
    assert found_in(tmp_path, installation) == [("home/ann", "can be written by everybody")]


def test_links_in_a_ring_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(GpuqError, match="more than 40 links"):
        list(trust.resolved(str(tmp_path / "a" / "python3")))


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT ROOT: nobody can give a file away")
def test_what_belongs_to_a_user_is_not_for_root_to_run(tmp_path: Path) -> None:
    installation = make_installation(tmp_path)
    os.chown(tmp_path / "usr/python3.11", 12345, 0)
    assert found_in(tmp_path, installation) == [
        ("usr/python3.11", "belongs to uid 12345, who has no name here")
    ]


def test_a_refusal_names_the_path_and_gives_the_lines_that_lead_out() -> None:
    install.check_trusted([])
    found = [Breach("/home/ann", "belongs to ann (uid 1000)"), Breach("/home/ann/v", "the same")]
    with pytest.raises(GpuqError) as told:
        install.check_trusted(found)
    first, *lines = str(told.value).splitlines()
    assert "/home/ann belongs to ann (uid 1000), and 1 other path no better." in first
    assert [line.strip() for line in lines] == [
        "sudo python3 -m venv /opt/gpuq",
        "sudo /opt/gpuq/bin/pip install gpuqd    (or the folder with its source)",
        "sudo /opt/gpuq/bin/gpuq daemon install --system",
    ]


def test_an_installation_is_what_its_interpreter_finds_by_itself(tmp_path: Path) -> None:
    found = trust.find_installation(sys.executable)
    assert os.path.samefile(found.package, Path(install.__file__).parents[2])
    assert Path(found.commands) == BIN
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    with pytest.raises(GpuqError, match="only with the help of PYTHONPATH"):
        trust.find_installation(str(bare / "bin/python"))


def test_the_faces_are_made_by_the_installation() -> None:
    faces = faces_of(trust.find_installation(sys.executable))
    assert faces.scripts["zsh"].startswith("#compdef gpuq\n")
    assert set(faces.scripts) == {"bash", "zsh", "fish"}
    assert set(faces.pages) == set(uninstall.PAGES)


def test_both_ask_for_one_whose_daemon_it_is() -> None:
    ran = subprocess.run(
        [BIN / "gpuq", "daemon", "uninstall", "--user", "--system", "--dry-run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (2, "gpuqd: --system and --user: one of them\n")
