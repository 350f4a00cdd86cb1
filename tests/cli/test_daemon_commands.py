"""`gpuq daemon`, `ping`, `config` and `completion`."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

import gpuq as package
from gpuq import autostart, paths, service
from gpuq.cli import main
from gpuq.cli.completion import SCRIPTS
from gpuq.daemon.systemd.unit_files import user_units
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, job, page
from tests.conftest import BIN, Daemon
from tests.fake_systemd import FakeSystemd


def pong(fake: FakeDaemon, **changes: Any) -> dict[str, Any]:
    there: dict[str, Any] = {
        "version": package.__version__,
        "pid": 4711,
        "uptime_s": 90.0,
        "started_at": 1000.0,
        "mode": "user",
        "state_dir": os.path.dirname(fake.path),
        "database": "gpuq.db",
        "socket": fake.path,
        "gpu_backend": "sim:4x24G",
        "gpu_trouble": None,
        "gpus": 4,
        "counts": {"running": 2, "queued": 1, "queued_yours": 1},
    }
    return there | changes


# ── the daemon ──


def test_ping_tells_who_answers(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["ping"] = pong(fake)
    out = gpuq("ping").out
    assert out.startswith(f"gpuqd {package.__version__} (pid 4711) answers in ")


def test_daemon_status_is_ping_in_words(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["ping"] = pong(fake, gpu_trouble="the driver hangs")
    out = gpuq("daemon", "status").out
    assert "your own, pid 4711" in out
    assert "2 running, 1 queued, 4 simulated GPUs (sim:4x24G)" in out
    assert "no GPUs: the driver hangs" in out
    answer = json.loads(gpuq("daemon", "status", "--json").out)
    assert answer == {"schema": 1, "daemon": fake.answers["ping"]}


def test_gpus_that_are_not_read_yet_are_not_none(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["ping"] = pong(fake, gpus=None)
    assert "simulated GPUs not read yet (sim:4x24G)" in gpuq("daemon", "status").out


def test_daemon_start_leaves_alone_what_runs(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["ping"] = pong(fake)
    assert gpuq("daemon", "start") == (0, "it runs already (pid 4711)\n", "")


def test_a_daemon_behind_a_given_socket_is_not_ours_to_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["--socket", str(tmp_path / "none"), "daemon", "start"]) == 1
    assert "is not yours to start" in capfd.readouterr().err


def test_daemon_stop_waits_until_it_is_gone_and_says_what_goes_on(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    """Its socket goes first, the process a little later."""
    last_steps = f"sleep 0.2; rm '{fake.path}'; sleep 0.2; echo gone"
    with subprocess.Popen(
        ["sh", "-c", f"read word; {last_steps}"], stdin=PIPE, stdout=PIPE
    ) as there:
        assert there.stdin
        assert there.stdout

        def leave(_: object) -> dict[str, Any]:
            there.stdin.close()
            return {"pid": there.pid}

        fake.answers |= {"ping": pong(fake), "stop": leave}
        said = gpuq("daemon", "stop").out
        assert said == f"stopped the daemon (pid {there.pid}); 2 jobs keep running\n"
        os.set_blocking(there.stdout.fileno(), False)
        assert there.stdout.read() == b"gone\n"
    assert not os.path.exists(fake.path)


def test_daemon_start_stop_and_restart_for_real(stopped_daemon: Daemon) -> None:
    gpuq = stopped_daemon.gpuq
    assert gpuq("daemon", "status").returncode == 4
    assert "started your own daemon" in gpuq("daemon", "start").stdout
    assert gpuq("daemon", "status").returncode == 0
    assert "stopped the daemon" in gpuq("daemon", "restart").stdout
    assert gpuq("ping").returncode == 0
    assert gpuq("daemon", "stop").stdout.startswith("stopped the daemon")
    assert gpuq("ping").returncode == 4


def test_daemon_run_is_gpuqd(tmp_path: Path) -> None:
    ran = subprocess.run(
        [BIN / "gpuq", "--state-dir", tmp_path, "daemon", "run", "--version"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, f"gpuqd {package.__version__}\n")


# ── a daemon that systemd keeps ──


@pytest.fixture
def systemd(
    tmp_path: Path, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeSystemd]:
    """The daemon that answers is the machine's, and we are root."""
    there = FakeSystemd(tmp_path / "tools", monkeypatch)
    there.set_active(service.SOCKET, service.SERVICE)
    unit = tmp_path / service.SERVICE
    unit.touch()
    monkeypatch.setattr(paths, "SYSTEM_SOCKET", fake.path)
    monkeypatch.setattr(paths, "SYSTEM_UNITS", (str(unit),))
    monkeypatch.setattr(service, "is_root", lambda: True)
    # Nobody is to leave before it was asked to.
    leaving = subprocess.Popen(["sleep", "60"])

    def leave(_: object) -> dict[str, Any]:
        leaving.terminate()
        leaving.wait()
        return {"pid": leaving.pid}

    fake.answers |= {"ping": pong(fake, mode="system"), "stop": leave}
    yield there
    leaving.terminate()
    leaving.wait()


def test_stop_stops_socket_and_service_and_lets_followers_go(
    gpuq: Gpuq, fake: FakeDaemon, systemd: FakeSystemd
) -> None:
    assert gpuq("daemon", "stop").out == (
        "stopped gpuqd.socket and gpuqd.service; 2 jobs keep running\n"
    )
    assert systemd.calls == ["systemctl stop gpuqd.socket gpuqd.service"]
    assert [request["restart"] for request in fake.requests("stop")] == [False]


def test_a_socket_alone_is_stopped_without_starting_a_daemon(
    gpuq: Gpuq, fake: FakeDaemon, systemd: FakeSystemd
) -> None:
    (systemd.folder / "active" / service.SERVICE).unlink()
    assert gpuq("daemon", "stop").out == "stopped gpuqd.socket and gpuqd.service\n"
    assert fake.asked == []


def test_restart_lets_followers_wait_and_takes_what_systemd_starts(
    gpuq: Gpuq, fake: FakeDaemon, systemd: FakeSystemd
) -> None:
    assert gpuq("daemon", "restart").out.startswith("restarted the daemon (pid 4711)")
    assert [request["restart"] for request in fake.requests("stop")] == [True]
    assert "systemctl restart gpuqd.service" not in systemd.calls
    assert systemd.calls[-1] == "systemctl start gpuqd.socket gpuqd.service"


def test_start_goes_through_systemd_and_says_what_runs_already(
    gpuq: Gpuq, systemd: FakeSystemd
) -> None:
    assert gpuq("daemon", "start").out == "it runs already (pid 4711)\n"
    (systemd.folder / "active" / service.SERVICE).unlink()
    assert gpuq("daemon", "start").out == "started the daemon (pid 4711)\n"
    assert systemd.calls == [
        "systemctl reset-failed gpuqd.socket gpuqd.service",
        "systemctl start gpuqd.socket gpuqd.service",
    ]


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_a_service_takes_no_gpus_from_a_command_line(
    gpuq: Gpuq, systemd: FakeSystemd, verb: str
) -> None:
    ran = gpuq("daemon", verb, "--gpus", "sim:1x8G")
    assert ran.code == 2
    assert 'Write it to the file that `gpuq config` names: gpus = "sim:1x8G"' in ran.err
    assert systemd.calls == []


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_who_is_not_root_is_told_the_words_to_say(
    gpuq: Gpuq, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    if verb == "start":
        (systemd.folder / "active" / service.SERVICE).unlink()
    monkeypatch.setattr(service, "is_root", lambda: False)
    ran = gpuq("daemon", verb)
    assert ran.code == 5
    assert f"only root may {verb} it: sudo systemctl {verb} gpuqd." in ran.err
    assert systemd.calls == []


def test_what_systemd_refuses_is_told_with_where_to_look(gpuq: Gpuq, systemd: FakeSystemd) -> None:
    systemd.fail("systemctl stop")
    ran = gpuq("daemon", "stop")
    assert ran.code == 4
    assert "systemd did not stop gpuqd: Access denied. See: journalctl -u gpuqd -n 20" in ran.err


def test_status_and_ping_say_why_that_daemon_was_asked_and_who_keeps_it(
    gpuq: Gpuq, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers["ping"] = pong(fake)
    assert "asked because of: --socket\n" in gpuq("--socket", fake.path, "daemon", "status").out
    assert "(from --socket)" in gpuq("--socket", fake.path, "ping").out
    for is_kept, words in ((True, "kept by systemd as gpuqd.service"), (None, None)):
        monkeypatch.setattr(service, "keeps", lambda pid, is_kept=is_kept: is_kept)
        for command in (("daemon", "status"), ("ping",)):
            out = gpuq(*command).out
            assert words is None or words in out
            assert (words is not None) == ("systemd" in out)


def test_the_users_own_unit_serves_the_socket_that_it_names(
    tmp_path: Path, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    unit = tmp_path / "systemd/user" / service.SOCKET
    unit.parent.mkdir(parents=True)
    socket = str(tmp_path / "100%/gpuq.sock")
    unit.write_text(user_units("/usr/bin/python3", socket, ())[service.SOCKET])
    found = service.serving(socket)
    assert found is not None
    assert not found.is_system
    assert service.serving(str(tmp_path / "other.sock")) is None
    monkeypatch.setattr(service, "BOOTED", "/no/such/place")
    assert service.serving(socket) is None


def test_submit_starts_the_users_own_unit_where_it_outlives_a_logout(
    tmp_path: Path, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    unit = tmp_path / "systemd/user" / service.SOCKET
    unit.parent.mkdir(parents=True)
    state = str(tmp_path / "state")
    unit.write_text(user_units("/usr/bin/python3", f"{state}/gpuq.sock", ())[service.SOCKET])
    detached: list[str] = []
    monkeypatch.setattr(autostart, "spawn_daemon", lambda where, *_: detached.append(where))
    autostart.start_own_daemon(state)
    assert (detached, systemd.calls) == ([state], [])
    (systemd.folder / "linger" / service.own_name()).touch()
    assert "kept by systemd as gpuqd.service" in autostart.start_own_daemon(state)
    assert len(detached) == 1
    assert systemd.calls[-1] == "systemctl --user start gpuqd.socket gpuqd.service"


def test_daemon_install_is_gpuqds(tmp_path: Path) -> None:
    for verb in ("install", "uninstall"):
        ran = subprocess.run(
            [BIN / "gpuq", "--state-dir", tmp_path, "daemon", verb, "--system", "--dry-run"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith("gpuqd: --state-dir: the machine's daemon goes by /etc/gpuq/")


# ── config ──


def test_config_shows_what_the_daemon_goes_by(gpuq: Gpuq, fake: FakeDaemon) -> None:
    settings = [{"name": "gpus", "value": "sim:4x24G", "origin": "GPUQ_GPUS"}]
    fake.answers["config"] = {"settings": settings}
    assert gpuq("config") == (0, "gpus\tsim:4x24G\tGPUQ_GPUS\n", "")
    assert gpuq("config", terminal=True).out.splitlines() == [
        "SETTING  VALUE      FROM",
        "gpus     sim:4x24G  GPUQ_GPUS",
    ]
    assert json.loads(gpuq("config", "--json").out) == {
        "schema": 1,
        "settings": settings,
        "notes": [],
    }


def test_config_and_status_say_why_the_file_is_not_in_force(gpuq: Gpuq, fake: FakeDaemon) -> None:
    notes = ["restart needed: gpus (now nvml, the file says none): gpuq daemon restart"]
    fake.answers["config"] = {"settings": [], "notes": notes}
    fake.answers["ping"] = pong(fake, config_notes=notes)
    assert gpuq("config").err == f"gpuq: {notes[0]}\n"
    assert json.loads(gpuq("config", "--json").out)["notes"] == notes
    assert notes[0] in gpuq("daemon", "status").out.splitlines()


def test_without_a_daemon_config_shows_what_one_would_go_by(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["--state-dir", str(tmp_path), "config"]) == 0
    out, err = capfd.readouterr()
    assert err.startswith("gpuq: no daemon runs;")
    assert f"state_dir\t{tmp_path}\t--state-dir\n" in out


# ── completion ──


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["su"], ["submit"]),
        (["--col"], ["--color"]),
        (["--color", ""], ["auto", "always", "never"]),
        (["submit", "--visible", "u"], ["uuid"]),
        (["submit", "--gpu-m"], ["--gpu-mem", "--gpu-model"]),
        (["submit", "-g", "2", "--n"], ["--name"]),
        (["submit", "python", "--n"], []),
        (["submit", "-g", "2", "--", "--n"], []),
        (["submit", "pyth"], []),
        (["status", "--state", "fa"], ["failed"]),
        (["status", "-s", "canc"], ["cancelled"]),
        (["daemon", "st"], ["start", "stop", "status"]),
        (["completion", "z"], ["zsh"]),
        (["cancel", "--no"], ["--now"]),
        (["nonsense", ""], []),
    ],
)
def test_what_may_stand_in_place_of_the_last_word(
    gpuq: Gpuq, words: list[str], found: list[str]
) -> None:
    assert gpuq("__complete", "--", *words).out.split() == (found or [])


def test_jobs_are_completed_by_id(
    gpuq: Gpuq, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUQ_SOCKET", fake.path)
    fake.answers["status"] = page(job(184), job(186), job(190))
    assert gpuq("__complete", "--", "kill", "18").out.split() == ["184", "186"]
    assert gpuq("__complete", "--", "logs", "").out.split() == ["184", "186", "190"]


def test_a_daemon_that_is_silent_or_absent_does_not_hold_up_the_shell(
    gpuq: Gpuq, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = threading.Event()
    monkeypatch.setenv("GPUQ_SOCKET", fake.path)

    def hesitate(_: object) -> dict[str, Any]:
        silence.wait(30)
        return page(job(184))

    fake.answers["status"] = hesitate
    try:
        assert gpuq("__complete", "--", "kill", "").out == ""
    finally:
        silence.set()
    monkeypatch.setenv("GPUQ_SOCKET", "/no/such/socket")
    assert gpuq("__complete", "--", "kill", "").out == ""


@pytest.mark.parametrize("shell", SCRIPTS)
def test_each_shell_has_its_script(gpuq: Gpuq, shell: str) -> None:
    assert "gpuq __complete -- " in gpuq("completion", shell).out


def test_bash_completes_with_it() -> None:
    script = """
        source <(gpuq completion bash)
        COMP_WORDS=(gpuq status --state fai); COMP_CWORD=3; _gpuq; echo "${COMPREPLY[@]}"
    """
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.stdout == "failed\n"
