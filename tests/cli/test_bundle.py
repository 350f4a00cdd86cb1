"""`gpuq bundle`: one file with all that helps, and nothing that somebody keeps to himself.

Secrets are planted wherever people put them, and the whole archive is searched.
"""

import json
import os
import signal
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from gpuq import paths, service
from gpuq.cli.bundle import collected
from gpuq.cli.bundle.archive import packed, write
from gpuq.cli.bundle.collected import Collected
from gpuq.client import Client
from gpuq.errors import GpuqError
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, gpu, page, process
from tests.cli.test_daemon_commands import pong
from tests.conftest import BIN, Daemon

PARTS = {
    *("README.txt", "doctor.json", "versions.json", "daemon.json", "settings.json", "gpus.json"),
    *("database.json", "daemon.log", "journal.txt", "kernel.txt", "nvidia-smi.txt"),
}


def opened(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        members = {member.name.partition("/")[2]: member for member in tar.getmembers()}
        texts = {}
        for name, member in members.items():
            file = tar.extractfile(member)
            assert file is not None
            assert (member.uid, member.uname, member.mode) == (0, "", 0o600)
            texts[name] = file.read().decode()
    return texts


def bundle_of(daemon: Daemon, path: Path, **environment: str) -> dict[str, str]:
    ran = subprocess.run(
        [BIN / "gpuq", "bundle", path],
        env=daemon.environment | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{path}\n"
    return opened(path)


# ── secrets ──

SECRETS = {
    "environment": "kq3vPzZu81environ",
    "of words": "queued-jobs-are-running",  # each of which gpuq says itself
    "argument": "wX9argument77q",
    "option -e": "pw0ptione55z",
    "env-file": "envf1le-9x8y7z",
    "job name": "zyzzyvaname",
    "tag": "zyzzyvatag",
    "reason of a drain": "zyzzyvadrain",
    "config": "https://hooks.example.org/T0/B0/zyzzyvahook",
    "spool": "sp00lsecret42",
    "log": "l0gsecret4242",
    "directory": "zyzzyvafolder",
    "program": "zyzzyvaprogram",
    "missing file": "zyzzyvamissing",
}


@pytest.fixture
def planted(stopped_daemon: Daemon, tmp_path: Path) -> Daemon:
    daemon = stopped_daemon
    config = tmp_path / ".config" / "gpuq" / "gpuq.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'on_end = "{SECRETS["config"]}"\n')
    daemon.environment |= {
        "API_KEY": SECRETS["environment"],
        "PASSPHRASE": SECRETS["of words"],
    }
    daemon.start("--config", str(config))
    folder = tmp_path / SECRETS["directory"]
    folder.mkdir()
    program = folder / SECRETS["program"]
    program.write_text(f"#!/bin/sh\necho {SECRETS['log']}\nexit 3\n")
    program.chmod(0o755)
    (tmp_path / "env").write_text(f"FROM_FILE={SECRETS['env-file']}\n")
    options = ["-n", SECRETS["job name"], "--tag", SECRETS["tag"], "-C", str(folder)]
    options += ["-e", f"OPTION={SECRETS['option -e']}", "--env-file", str(tmp_path / "env")]
    daemon.gpuq("submit", "-w", *options, "--", str(program), f"--key={SECRETS['argument']}")
    daemon.gpuq("submit", "-w", "-C", str(folder), "--", f"./{SECRETS['missing file']}")
    drop(daemon)
    daemon.gpuq("drain", "-m", f"{SECRETS['reason of a drain']} {SECRETS['of words']}")
    return daemon


def drop(daemon: Daemon) -> None:
    """A job file that is refused, whose name and content nobody is to know."""
    with daemon.client() as client:
        folder = Path(client.call("spool")["path"])
    (folder / f"{SECRETS['spool']}.sh").write_text(f"#GPUQ --no-such {SECRETS['spool']}\n")


def test_no_secret_that_was_planted_is_in_it(planted: Daemon, tmp_path: Path) -> None:
    parts = bundle_of(planted, tmp_path / "b.tar.gz")
    assert parts.keys() >= PARTS
    whole = "\n".join([*parts, *parts.values()])
    assert [name for name, secret in SECRETS.items() if secret in whole] == []
    assert tmp_path.name not in whole, "a home"
    kept = [variable for variable, value in planted.environment.items() if _tells(value, whole)]
    assert kept == []
    assert json.loads(parts["doctor.json"])
    settings = {one["name"]: one for one in json.loads(parts["settings.json"])}
    assert settings["grace"] == {"name": "grace", "value": "10s", "origin": "default"}
    assert settings["on_end"]["value"] == "…"
    found = json.loads(parts["database.json"])
    assert found["statistics"]["rows"]["environments"] >= 1
    assert {one["outcome"] for one in found["attempts"]} == {"failed"}
    assert [one["exit_code"] for one in found["attempts"]] == [127, 3]
    assert "submitted" in {one["kind"] for one in found["events"]}
    assert "serving" in parts["daemon.log"] or "there is none" in parts["daemon.log"]


PUBLIC = ("default", "xterm-256color")


def _tells(value: str, whole: str) -> bool:
    """Values that are a word of everybody's, like C or 1, say nothing."""
    return len(value) >= 6 and value in whole and value not in PUBLIC


def test_the_archive_is_searched_rightly(planted: Daemon, tmp_path: Path) -> None:
    """What is not folded has the secrets: the test above would see them."""
    log = planted.gpuq("show", "1", "--json").stdout + planted.gpuq("logs", "1").stdout
    seen = [name for name, secret in SECRETS.items() if secret in log]
    assert {"argument", "job name", "tag", "directory", "log"} <= set(seen)
    assert SECRETS["reason of a drain"] in planted.gpuq("doctor").stdout


# ── without a daemon ──


def test_where_no_daemon_answers_the_database_is_read_beside_it(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.gpuq("submit", "-w", "-g", "0", "false")
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        hung = bundle_of(daemon, tmp_path / "hung.tar.gz")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    daemon.stop()
    before = {path: path.stat().st_mtime_ns for path in daemon.state.glob("gpuq.db*")}
    stopped = bundle_of(daemon, tmp_path / "stopped.tar.gz")
    for parts in (hung, stopped):
        found = json.loads(parts["database.json"])
        assert [one["exit_code"] for one in found["attempts"]] == [1]
        assert "trouble" in json.loads(parts["settings.json"])
    assert before == {path: path.stat().st_mtime_ns for path in daemon.state.glob("gpuq.db*")}
    daemon.start()


def test_without_anything_it_is_whole_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    ran = subprocess.run(
        [BIN / "gpuq", "--state-dir", tmp_path / "none", "bundle", path],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    parts = opened(path)
    assert parts.keys() >= PARTS
    assert "there is no database" in json.loads(parts["database.json"])["trouble"]
    assert not (tmp_path / "none").exists()


# ── its parts ──


@pytest.fixture
def sample(fake: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The parts on a machine with a unit, a driver and GPUs, each with a secret in it."""
    unit = tmp_path / "etc" / service.SERVICE
    (unit.parent / f"{service.SERVICE}.d").mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/usr/bin/gpuqd --system\nEnvironment=KEY=zyzzyva\n")
    drop_in = unit.parent / f"{service.SERVICE}.d" / "override.conf"
    drop_in.write_text("[Service]\nEnvironment=A=1 \\\n  TOKEN=the-queue\nKillMode=process\n")
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        "#!/bin/sh\ncat <<'END'\n    Product Name     : NVIDIA H100\n"
        "    Serial Number    : 1323zyzzyva\n    Processes\n"
        "        Name         : python zyzzyva.py\nEND\n"
    )
    smi.chmod(0o755)
    monkeypatch.setattr(paths, "SYSTEM_UNITS", (str(unit),))
    monkeypatch.setattr(service, "TOOLS", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    seen = gpu(0, processes=[process(command="zyzzyva")], reason="held by zyzzyva")
    fake.answers |= {"ping": pong(fake), "gpus": page(gpus=[seen])}
    fake.answers["extract"] = {"statistics": {}, "jobs": [], "attempts": [], "events": []}
    with Client(fake.path) as client:
        return dict(Collected(client, {"HOME": str(tmp_path)}).parts())


def test_units_are_told_without_their_environment(sample: dict[str, str]) -> None:
    units = {name: text for name, text in sample.items() if name.startswith("units/")}
    assert len(units) == 2
    text = "".join(units.values())
    assert "ExecStart=/usr/bin/gpuqd --system\nEnvironment=…\n" in text
    assert "Environment=…\nKillMode=process\n" in text
    assert "the-queue" not in text


def test_gpus_are_told_without_their_processes(sample: dict[str, str]) -> None:
    (told,) = json.loads(sample["gpus.json"])["gpus"]
    assert told["model"] == "NVIDIA H100 80GB HBM3"
    assert told["reason"] == "held by …"
    assert "processes" not in told
    assert sample["nvidia-smi.txt"] == "    Product Name     : NVIDIA H100\n    Processes\n"
    assert "zyzzyva" not in "".join(sample.values())


def test_hooks_are_left_out_whole() -> None:
    one = {"name": "on_end", "value": "curl queue", "origin": "default"}
    assert collected._value(one) == "…"
    assert collected._value(one | {"name": "grace", "value": "10s"}) == "10s"


# ── the file ──


def test_it_is_for_its_owner_alone_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    old = os.umask(0)
    try:
        write(str(path), "b", [("a.txt", "text")])
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert opened(path) == {"a.txt": "text"}
    before = path.read_bytes()
    with pytest.raises(GpuqError, match="is there already"):
        write(str(path), "b", [])
    assert path.read_bytes() == before
    with pytest.raises(GpuqError, match="cannot be written"):
        write(str(tmp_path / "no" / "b.tar.gz"), "b", [])
    assert os.listdir(tmp_path) == ["b.tar.gz"]


def test_a_text_with_odd_bytes_is_packed() -> None:
    assert packed("b", [("a", "\udcff…")])


def test_it_says_what_is_in_it_and_what_is_not(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers |= {"ping": pong(fake), "gpus": page()}
    fake.answers["extract"] = {"statistics": {}, "jobs": [], "attempts": [], "events": []}
    path = tmp_path / "b.tar.gz"
    ran = gpuq("bundle", str(path), terminal=True)
    assert ran.code == 0
    assert ran.out.startswith(f"wrote {path} (")
    said: Any = opened(path)["README.txt"]
    for line in ran.out.splitlines()[2:-1]:
        assert line.strip(": ") in said or line.strip() in ("in it:", "not in it:")
    again = gpuq("bundle", str(path))
    assert (again.code, "is there already" in again.err) == (1, True)


def test_a_name_that_would_paint_the_terminal_is_told_and_not_done(
    daemon: Daemon, tmp_path: Path
) -> None:
    name = tmp_path / "\x1b[31mX"
    for code in (0, 1):  # the second finds the first there
        ran = subprocess.run(
            [BIN / "gpuq", "bundle", name],
            env=daemon.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == code
        assert "[31mX" in ran.stdout + ran.stderr
        assert "\x1b" not in ran.stdout + ran.stderr
    assert name.exists()
