"""`gpuq doctor`: each look finds what is well, what may hurt and what is broken, and nothing hangs."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gpuq as package
from gpuq import database_file, paths, service
from gpuq.cli.doctor import look_over as looking
from gpuq.cli.doctor import of_gpus, of_state, of_torch
from gpuq.cli.doctor.bounded import run
from gpuq.cli.doctor.finding import Finding
from gpuq.cli.doctor.look_over import CHECKS, look_over
from gpuq.client import Client
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import newest_version
from gpuq.errors import NotPermitted, UsageError
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, gpu, page, running, simulated
from tests.cli.test_daemon_commands import pong
from tests.conftest import BIN, Daemon
from tests.fake_systemd import FakeSystemd

Find = Callable[..., list[Finding]]


@pytest.fixture
def find(fake: FakeDaemon, tmp_path: Path) -> Find:
    """What one check finds on a machine whose files lie in tmp_path/root."""
    fake.answers.setdefault("ping", pong(fake))
    fake.answers.setdefault("gpus", page(gpus=[gpu()]))

    def of(name: str, environ: dict[str, str] | None = None, **options: Any) -> list[Finding]:
        with Client(fake.path) as client:
            told = look_over(
                client,
                {"HOME": str(tmp_path)} | (environ or {}),
                root=str(tmp_path / "root"),
                checks={name: CHECKS[name]},
                **options,
            )
        assert all(finding.remedy for _, finding in told if finding.level != "ok")
        return [finding for _, finding in told]

    return of


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    return FakeSystemd(tmp_path / "tools", monkeypatch)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / paths.DATABASE_NAME
    store = Store(path)
    store.database.close()
    path.chmod(0o600)
    return path


def put(tmp_path: Path, path: str, text: str = "") -> Path:
    file = tmp_path / "root" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def levels(found: list[Finding]) -> list[str]:
    return [finding.level for finding in found]


# ── the whole ──


def test_a_sound_installation_is_found_sound(gpuq: Gpuq, fake: FakeDaemon, database: Path) -> None:
    fake.answers |= {"ping": pong(fake), "gpus": page(gpus=[simulated(0), simulated(1)])}
    ran = gpuq("doctor")
    assert ran.code == 0
    findings = [line.split("\t") for line in ran.out.splitlines()]
    assert ["ok", "2 simulated GPUs by sim:4x24G", ""] in findings
    assert all(level in ("ok", "warning") for level, _, _ in findings)
    assert all(remedy for level, _, remedy in findings if level != "ok")


def test_every_finding_says_which_check_it_is_of(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers |= {"ping": pong(fake), "gpus": page()}
    told = json.loads(gpuq("doctor", "--json").out)
    assert told["schema"] == 1
    assert {finding["check"] for finding in told["findings"]} <= CHECKS.keys()
    assert all(
        finding.keys() == {"check", "level", "what", "remedy"} for finding in told["findings"]
    )


def test_on_a_terminal_the_last_line_counts(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["ping"] = NotPermitted("you may not use this daemon")
    ran = gpuq("doctor", terminal=True)
    assert ran.code == 1
    assert ran.out.splitlines()[-1].startswith("1 failure, ")


def test_a_check_that_breaks_is_a_finding_and_hides_no_other(fake: FakeDaemon) -> None:
    def breaks(scene: Any) -> Any:
        raise RuntimeError("what nobody thought of")

    fake.answers["ping"] = pong(fake)
    with Client(fake.path) as client:
        found = look_over(client, {}, checks={"odd": breaks, "python": CHECKS["python"]})
    assert [(name, finding.level) for name, finding in found] == [
        ("odd", "warning"),
        ("python", "ok"),
    ]
    assert "what nobody thought of" in found[0][1].what


def test_a_check_that_hangs_is_a_finding(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "never")
    fake.answers["ping"] = pong(fake)
    monkeypatch.setattr(looking, "LIMIT_S", 0.2)

    def hangs(scene: Any) -> Any:
        (tmp_path / "never").read_text()
        yield from ()

    with Client(fake.path) as client:
        ((_, finding),) = look_over(client, {}, checks={"state": hangs})
    (tmp_path / "never").write_text("")
    assert finding.level == "warning"
    assert finding.what == "the look at state did not end in its time"
    assert "df -h" in finding.remedy


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/pid; wait"
    ran = run(["sh", "-c", script], 1.5)
    assert (ran.code, ran.last_words) == (None, "no answer within 1.5 s")
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
    pytest.fail("it lives on")


# ── the daemon ──


def test_another_version_or_changed_files_ask_for_a_restart(find: Find, fake: FakeDaemon) -> None:
    assert levels(find("version")) == ["ok", "ok"]
    for change in ({"version": "0.0.9"}, {"installed_version": "9.9"}, {"is_stale": True}):
        fake.answers["ping"] = pong(fake, **change)
        _, stale = find("version")
        assert stale.level == "warning"
        assert stale.remedy.endswith("gpuq daemon restart")


def test_who_answers_and_where_that_came_from(find: Find, fake: FakeDaemon) -> None:
    assert find("daemon") == [Finding("ok", f"daemon with pid 4711 at {fake.path} (from --socket)")]
    fake.answers["ping"] = pong(fake, drained={"actor": "dan", "reason": "new fan"})
    assert find("daemon")[1].remedy == "End it: gpuq drain --off"


def test_settings_in_force_are_those_of_the_daemon(gpuq: Gpuq, fake: FakeDaemon) -> None:
    note = "deny_gpus: no GPU of this machine is 7"
    fake.answers |= {"ping": pong(fake, config_notes=[note]), "gpus": page()}
    out = gpuq("doctor").out
    others = "settings of flags, the environment and the defaults"
    assert f"ok\t{others}; there is no /etc/gpuq/gpuq.toml\t\n" in out
    assert f"warning\t{note}\tSee: gpuq config\n" in out


def test_a_broken_file_of_settings_is_found_beside_a_daemon_that_runs(
    find: Find, fake: FakeDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "gpuq.toml"
    file.write_text("grace = 3s\n")
    asked = {"GPUQ_CONFIG": str(file)}
    found = find("settings", asked)
    assert levels(found) == ["ok", "failure"]
    note = f"the file was changed and cannot be read: {found[1].what}; the settings before stay"
    fake.answers["ping"] = pong(fake, config_notes=[note, "something else"])
    (_, other) = find("daemon", asked)
    assert other.what == "something else", "and the file is told of once"
    file.write_text('grace = "3s"\n')
    fake.answers["config"] = {"settings": [{"name": "config", "value": str(file)}]}
    (found_well,) = find("settings", asked)
    assert found_well.what.startswith(f"settings of {file}, flags, ")


def test_what_cannot_be_told_is_not_ok(fake: FakeDaemon, tmp_path: Path) -> None:
    fake.answers["ping"] = NotPermitted("you may not use this daemon")
    with Client(fake.path) as client:
        found = look_over(client, {}, checks={"state": CHECKS["state"]})
    ((_, finding),) = found
    assert (finding.level, finding.remedy) == ("warning", "Name it: gpuq --state-dir DIR doctor")


def test_where_nobody_answers_what_to_do_is_said_once(tmp_path: Path) -> None:
    with Client(tmp_path / "none") as client:
        ((_, finding),) = look_over(client, {}, checks={"daemon": CHECKS["daemon"]})
    assert finding.what == f"no daemon answers at {tmp_path}/none (from --socket)"
    assert finding.remedy.startswith("Start it as it was started")


def test_a_sentence_ends_once(gpuq: Gpuq, fake: FakeDaemon) -> None:
    note = "there is no setting 'grac'; did you mean grace?"
    fake.answers |= {"ping": pong(fake, config_notes=[note]), "gpus": page()}
    assert f"{note} See: gpuq config\n" in gpuq("doctor", terminal=True).out


def test_who_is_refused_hears_it_as_a_failure(find: Find, fake: FakeDaemon) -> None:
    fake.answers["ping"] = NotPermitted("you may not use this daemon")
    (found,) = find("daemon")
    assert (found.level, found.what) == ("failure", "you may not use this daemon")


def test_a_socket_that_others_reach_is_told(find: Find, fake: FakeDaemon) -> None:
    os.chmod(fake.path, 0o600)
    assert levels(find("socket")) == ["ok"]
    os.chmod(fake.path, 0o666)
    (found,) = find("socket")
    assert (found.level, found.remedy) == ("warning", f"chmod 600 {fake.path}")
    fake.answers["ping"] = pong(fake, mode="system")
    assert levels(find("socket")) == ["ok"]
    os.chmod(fake.path, 0o600)
    assert levels(find("socket")) == ["warning"], "of the machine's daemon everybody is a client"


def doctor_of(state: Path, *words: str, **options: Any) -> tuple[int, str, float]:
    """Exit code, findings and how long it took (s), of a command of its own."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("GPUQ_")
    } | {"HOME": str(state.parent), "GPUQ_AUTOSTART": "0"}
    began = time.monotonic()
    ran = subprocess.run(
        [BIN / "gpuq", "--state-dir", state, "doctor", *words],
        env=environment | {"GPUQ_AUTOSTART": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode, ran.stdout, time.monotonic() - began


def test_without_a_daemon_and_without_a_state_directory_all_is_looked_at(tmp_path: Path) -> None:
    code, out, _ = doctor_of(tmp_path / "none")
    assert code == 0
    assert f"ok\tno daemon at {tmp_path}/none/gpuq.sock (from --state-dir); `gpuq submit`" in out
    assert "ok\tno database yet: the first daemon makes it\t\n" in out
    assert not (tmp_path / "none").exists(), "nothing is made"


def test_a_daemon_that_was_stopped_by_a_signal_is_found_hung(daemon: Daemon) -> None:
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        code, out, _ = doctor_of(daemon.state)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert code == 1
    what = f"(pid {daemon.pid}) takes connections and does not answer: it was stopped by a signal"
    assert what in out
    assert f"\tkill -CONT {daemon.pid}\n" in out
    assert "ok\tdatabase of version 1" in out, "the rest is looked at all the same"
    assert "ok\tdaemon with pid" in daemon.gpuq("doctor").stdout


def test_a_look_changes_nothing(daemon: Daemon) -> None:
    def seen() -> dict[str, tuple[int, int]]:
        files = [path for path in daemon.state.rglob("*") if stat.S_ISREG(path.lstat().st_mode)]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    daemon.stop()
    before = seen()
    doctor_of(daemon.state)
    code, out, _ = doctor_of(daemon.state, "--deep")
    assert (code, seen()) == (0, before)
    assert "ok\tall is well: 0 jobs, 0 attempts, " in out
    daemon.start()


# ── systemd ──


def test_what_a_logout_ends_is_said(
    gpuq: Gpuq, fake: FakeDaemon, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "is_root", lambda: False)
    fake.answers |= {"ping": pong(fake), "gpus": page()}
    assert "ok\tyour daemon and its jobs outlive a logout\t\n" in gpuq("doctor").out
    (systemd.folder / "kills").touch()
    ends = "systemd ends your daemon and its jobs when you log out: you do not linger"
    assert f"warning\t{ends}\tloginctl enable-linger\n" in gpuq("doctor").out
    (systemd.folder / "linger" / service.own_name()).touch()
    assert "ok\tyour daemon and its jobs outlive a logout: you linger\t\n" in gpuq("doctor").out


SHOWN = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "Result": "success",
    "NRestarts": "0",
    "NeedDaemonReload": "no",
}


@pytest.mark.parametrize(
    ("state", "level", "remedy"),
    [
        ({}, "ok", ""),
        ({"LoadState": "not-found"}, "failure", "gpuq daemon install"),
        ({"ActiveState": "failed", "Result": "exit-code"}, "failure", "journalctl"),
        ({"UnitFileState": "disabled"}, "warning", "systemctl --user enable gpuqd.socket"),
        ({"NeedDaemonReload": "yes"}, "warning", "systemctl --user daemon-reload"),
        ({"NRestarts": "4"}, "warning", "journalctl"),
    ],
)
def test_units_are_judged_by_what_systemd_says(
    find: Find,
    systemd: FakeSystemd,
    monkeypatch: pytest.MonkeyPatch,
    state: dict[str, str],
    level: str,
    remedy: str,
) -> None:
    kept = service.Service(is_system=False)
    monkeypatch.setattr(service, "serving", lambda socket: kept)
    answer = "\n".join(f"{name}={value}" for name, value in (SHOWN | state).items())
    (systemd.folder / "systemctl").write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    found = find("units")
    worst = next((finding for finding in found if finding.level != "ok"), found[0])
    assert worst.level == level
    assert remedy in worst.remedy


# ── GPUs ──


def test_gpus_that_are_set_aside_are_told_with_the_reason(gpuq: Gpuq, fake: FakeDaemon) -> None:
    lost = gpu(3, state="lost", reason="Xid 79: it has fallen off the bus")
    fake.answers |= {"ping": pong(fake), "gpus": page(gpus=[lost])}
    out = gpuq("doctor", terminal=True).out
    assert "warning  GPU 3: Xid 79: it has fallen off the bus. See: gpuq why gpu:3" in out


def test_without_gpus_it_is_said_how_to_simulate_them(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers |= {"ping": pong(fake), "gpus": page(gpu_trouble="no NVIDIA driver is loaded")}
    line = next(line for line in gpuq("doctor").out.splitlines() if "driver" in line)
    assert line.startswith(("warning\tno GPUs: no NVIDIA driver is loaded\t", "ok\tno NVIDIA"))


LOADED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
)


def with_driver(tmp_path: Path, loaded: str = LOADED) -> None:
    put(tmp_path, "proc/driver/nvidia/version", loaded)
    put(tmp_path, "dev/nvidiactl")


def test_a_driver_and_its_devices_are_looked_at(
    find: Find, fake: FakeDaemon, tmp_path: Path
) -> None:
    fake.answers["ping"] = pong(fake, gpu_backend="nvml")
    (found,) = find("driver")
    assert (found.level, found.what) == ("warning", "no NVIDIA driver is loaded")
    put(tmp_path, "sys/bus/pci/devices/0000:65:00.0/vendor", "0x10de\n")
    put(tmp_path, "sys/bus/pci/devices/0000:65:00.0/class", "0x030200\n")
    (found,) = find("driver")
    assert found.level == "failure"
    assert "an NVIDIA GPU at 0000:65:00.0" in found.what
    put(tmp_path, "proc/driver/nvidia/version", LOADED)
    assert levels(find("driver")) == ["ok", "failure"], "there is no device"
    with_driver(tmp_path)
    assert levels(find("driver")) == ["ok"]


@pytest.mark.parametrize(
    ("script", "level", "words"),
    [
        ("echo 0, 535.104; echo 1, 535.104", "ok", "2 GPUs"),
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
         "failure", "differ"),
        ("echo 'Unable to determine the device handle'; exit 255", "failure", "Unable to"),
        ("exec sleep 600", "warning", "no answer within 0.3 s"),
    ],
)  # fmt: skip
def test_nvml_is_asked_in_a_process_that_may_hang(
    find: Find,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    level: str,
    words: str,
) -> None:
    assert find("nvml") == [], "nothing is asked where no driver is loaded"
    with_driver(tmp_path)
    tool = put(tmp_path, "bin/nvidia-smi", f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(service, "TOOLS", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    if "sleep" in script:
        monkeypatch.setattr(of_gpus, "ASK_S", 0.3)
    (found,) = find("nvml")
    assert found.level == level
    assert words in found.what


class Spec:
    def __init__(self, folder: Path) -> None:
        self.origin = str(folder / "__init__.py")


@pytest.mark.parametrize(
    ("cuda", "driver", "said", "level", "words"),
    [
        ("'12.4'", LOADED, [True, 4, []], "ok", "finds 4 GPUs"),
        ("None", LOADED, None, "warning", "without CUDA"),
        ("'13.0'", LOADED, None, "warning", "needs driver 580, and 535.104.5 is loaded"),
        ("'12.4'", LOADED, [False, 0, ["The driver is too old\nand so on"]], "warning", "too old"),
        ("'12.4'", None, None, "ok", "no driver to hold it against"),
    ],
)
def test_torch_is_held_against_the_driver(
    find: Find,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cuda: str,
    driver: str | None,
    said: list[Any] | None,
    level: str,
    words: str,
) -> None:
    text = f"from typing import Optional\n__version__ = '2.6.0'\ncuda: Optional[str] = {cuda}\n"
    folder = put(tmp_path, "torch/version.py", text).parent
    if driver is not None:
        with_driver(tmp_path, driver)
    monkeypatch.setattr(of_torch, "find_spec", lambda name: Spec(folder))
    monkeypatch.setattr(of_torch, "ASK", f"print({json.dumps(json.dumps(said))})")
    monkeypatch.setattr(of_torch, "ASK_S", 30.0)
    (found,) = find("torch")
    assert found.level == level
    assert words in found.what
    assert "torch 2.6.0" in found.what


def test_a_torch_that_is_slow_to_load_is_no_fault(
    find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put(tmp_path, "torch/version.py", "__version__ = '2.6.0'\ncuda = '12.4'\n").parent
    with_driver(tmp_path)
    monkeypatch.setattr(of_torch, "find_spec", lambda name: Spec(folder))
    monkeypatch.setattr(of_torch, "ASK", "import time; time.sleep(600)")
    monkeypatch.setattr(of_torch, "ASK_S", 0.2)
    (found,) = find("torch")
    assert found.level == "ok"
    assert "gpuq doctor --deep" in found.what


def test_what_bounds_are_worth_here_is_said(gpuq: Gpuq, fake: FakeDaemon, database: Path) -> None:
    fake.answers |= {"ping": pong(fake), "gpus": page()}
    assert "ok\t--mem is enforced by the kernel\t\n" in gpuq("doctor").out
    fake.answers["bounds"] = {"mem_trouble": "no memory controller", "cpu_trouble": "no systemd"}
    out = gpuq("doctor").out
    watched = "watched once a second and not enforced by the kernel: no memory controller"
    assert f"ok\t--mem is {watched}\t\n" in out
    assert "ok\t--cpus is not enforced, and only counted for jobs without GPUs: no systemd\t" in out
    fake.answers["bounds"] = UsageError("this daemon knows no request 'bounds'")
    assert gpuq("doctor").code == 0, "an older daemon promises nothing, and is not ill"


# ── jobs ──


def test_jobs_that_do_not_get_on_are_named(find: Find, fake: FakeDaemon) -> None:
    assert find("jobs") == [Finding("ok", "0 jobs running, none of them stuck")]
    stuck = running(7, substate="unkillable", reason="pid 40 is in state D")
    fake.answers["status"] = page(stuck, running(8, idle=True), running(9))
    assert find("jobs") == [
        Finding("warning", "job 7 cannot be ended: pid 40 is in state D", "See: gpuq why 7"),
        Finding("warning", "job 8 holds its GPUs and computes nothing", "See: gpuq why 8"),
    ]


def test_more_logs_than_the_disk_holds_are_told_in_time(find: Find, fake: FakeDaemon) -> None:
    def keep(size: str) -> None:
        rows = [("keep_for", "30d"), ("keep_size", size)]
        settings = [{"name": name, "value": value, "origin": "default"} for name, value in rows]
        fake.answers["config"] = {"settings": settings}

    keep("1M")
    assert find("kept") == [Finding("ok", "logs of jobs are kept for 30d, and 1M of them")]
    keep("900000T")
    assert levels(find("kept")) == ["warning"]


# ── the state ──


def test_where_a_database_cannot_live_is_known(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for kind in ("ext4", "nfs4", "tmpfs"):
        monkeypatch.setattr(paths, "file_system_of", lambda path, kind=kind: kind)
        found[kind] = find("state")[0].level
    assert found == {"ext4": "ok", "nfs4": "failure", "tmpfs": "warning"}


def test_a_state_directory_that_others_write_to_is_told(find: Find, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert "failure" not in levels(find("state"))
    tmp_path.chmod(0o777)
    assert find("state")[1] == Finding(
        "warning",
        f"{tmp_path} has mode 0777 and belongs to uid {os.geteuid()}: others may write there",
        f"chmod go-w {tmp_path}",
    )


def test_the_head_of_a_database_is_read(find: Find, database: Path) -> None:
    (found,) = find("database")
    assert found.level == "ok"
    assert found.what.startswith(f"database of version {newest_version()}, ")
    assert database_file.newest_version() == newest_version()


def poke(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: poke(path, 0, b"gone"), "no SQLite database"),
        (lambda path: poke(path, 68, b"else"), "a database of another program"),
        (lambda path: poke(path, 60, b"\0\0\1\0"), "written by a newer gpuq"),
        (lambda path: os.truncate(path, 8192), "it was cut short"),
        (lambda path: Path(f"{path}.damaged").touch(), "a damaged page"),
        (lambda path: path.rename(path.with_name("aside")), "was removed under the daemon"),
    ],
)
def test_a_database_that_is_not_right_is_a_failure(
    find: Find, database: Path, harm: Callable[[Path], None], words: str
) -> None:
    harm(database)
    found = [finding for finding in find("database") if finding.level == "failure"]
    assert [words in finding.what for finding in found] == [True]


def test_a_long_log_and_open_rights_are_warnings(
    find: Find, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.chmod(0o644)
    database.with_name(f"{database.name}-wal").write_bytes(b"x" * 100)
    monkeypatch.setattr(of_state, "LONG_LOG", 99)
    assert levels(find("database")) == ["ok", "warning", "warning"]


# ── the machine ──


def test_a_clock_that_was_set_back_is_told(find: Find, database: Path) -> None:
    assert not any("set back" in found.what for found in find("clock"))
    os.utime(database, (time.time() + 7200,) * 2)
    found = find("clock")[0]
    assert found.level == "warning"
    assert "the clock was set back: the database was written" in found.what


@pytest.mark.parametrize(("said", "level"), [("yes", "ok"), ("no", "warning"), ("", "warning")])
def test_who_keeps_the_clock_is_asked(
    find: Find, systemd: FakeSystemd, said: str, level: str
) -> None:
    tool = systemd.folder / "timedatectl"
    tool.write_text(f"#!/bin/sh\necho {said}\n")
    tool.chmod(0o755)
    assert find("clock")[-1].level == level


LIMITS = """
import resource, sys
which, soft = sys.argv[1:3]
number = getattr(resource, which)
resource.setrlimit(number, (int(soft), resource.getrlimit(number)[1]))
from gpuq.cli.main import run
sys.exit(run(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("which", "soft", "remedy"),
    [
        ("RLIMIT_NOFILE", 256, "ulimit -n"),
        ("RLIMIT_FSIZE", 10**9, "ulimit -f"),
        ("RLIMIT_AS", 2**35, "ulimit -v"),
    ],
)
def test_limits_that_jobs_would_inherit_are_told(
    tmp_path: Path, which: str, soft: int, remedy: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITS, which, str(soft), "--state-dir", str(tmp_path), "doctor"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    assert [line for line in ran.stdout.splitlines() if f"\t{remedy}" in line], ran.stdout


def test_shared_memory_of_a_container_is_too_little(
    find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert levels(find("shm")) == ["warning"], "there is none"
    put(tmp_path, "dev/shm/.keep")

    def told(blocks: int, free: int, path: str) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, blocks, free, free, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", partial(told, 2**20, 2**20))
    assert levels(find("shm")) == ["ok"]
    monkeypatch.setattr(os, "statvfs", partial(told, 2**14, 2**14))  # 64 MiB
    (small,) = find("shm")
    assert small.level == "warning"
    assert "--shm-size" in small.remedy
    monkeypatch.setattr(os, "statvfs", partial(told, 2**20, 10))
    assert levels(find("shm")) == ["warning"]


def test_a_full_disk_is_a_failure_and_a_fuller_one_a_warning(
    find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(free: int, files: int, path: str) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 2**30, free, free, 2**20, files, files, 0, 255))

    found = {}
    for free in (100, 2**18, 2**24):
        monkeypatch.setattr(os, "statvfs", partial(told, free, 2**20))
        found[free] = levels(find("disk"))
    assert found == {100: ["failure"], 2**18: ["warning"], 2**24: ["ok"]}
    monkeypatch.setattr(os, "statvfs", partial(told, 2**24, 3))
    assert levels(find("disk")) == ["ok", "warning"], "no more files can be made"


def test_a_tmp_that_is_another_place_is_looked_at_too(find: Find, tmp_path: Path) -> None:
    put(tmp_path, "tmp/.keep")
    found = find("tmp", {"TMPDIR": "/nowhere"})
    assert found[0].level in ("ok", "warning")
    assert found[1].level == "failure"


def test_memory_that_is_used_up_is_told(find: Find, tmp_path: Path) -> None:
    assert find("memory") == []
    put(tmp_path, "proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 900000 kB\n")
    assert levels(find("memory")) == ["ok"]
    put(tmp_path, "proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 20000 kB\n")
    assert levels(find("memory")) == ["warning"]


def test_control_groups_are_looked_for_wherever_they_are(find: Find, tmp_path: Path) -> None:
    assert levels(find("cgroups")) == ["warning"]
    put(tmp_path, "proc/self/mounts", "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n")
    assert find("cgroups") == [Finding("ok", "cgroup 2 at /sys/fs/cgroup/unified")]


def test_a_home_on_a_network_and_odd_directories_are_told(
    find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert levels(find("home")) == ["ok"]
    monkeypatch.setattr(paths, "file_system_of", lambda path: "nfs4")
    assert "keeps its state on this machine, in /var/tmp/gpuq-" in find("home")[0].what
    assert levels(find("home", {"HOME": "/nowhere/at/all"})) == ["warning"]
    relative = find("directories", {"XDG_STATE_HOME": "here"})
    assert relative[0].remedy == "unset XDG_STATE_HOME"
    gone = find("directories", {"XDG_RUNTIME_DIR": str(tmp_path / "gone")})
    assert levels(gone) == ["warning"]
    assert levels(find("directories", {"XDG_RUNTIME_DIR": str(tmp_path)})) == ["ok"]


def test_it_is_told_where_this_gpuq_is(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers |= {"ping": pong(fake), "gpus": page()}
    folder = os.path.dirname(package.__file__)
    assert f"ok\tgpuq {package.__version__}, in {folder}\t\n" in gpuq("doctor").out
