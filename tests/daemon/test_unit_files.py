"""The units say what they must, nothing of them reaches a job, and systemd has no word against them."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gpuq.daemon.systemd.unit_files import FOLDER, system_units, user_units
from gpuq.errors import UsageError

# All of systemd.exec(5) and systemd.resource-control(5) that a job would inherit as a sandbox, a
# smaller share of the machine, or another's identity; and what fills the environment.
DENIED_WORDS = """
    PrivateTmp PrivateDevices PrivateNetwork PrivateIPC PrivateUsers PrivateMounts PrivatePIDs
    ProtectHome ProtectSystem ProtectProc ProtectHostname ProtectClock ProtectKernelTunables
    ProtectKernelModules ProtectKernelLogs ProtectControlGroups ProcSubset
    RootDirectory RootImage RootImageOptions RootHash RootHashSignature RootVerity RootEphemeral
    BindPaths BindReadOnlyPaths MountAPIVFS MountImages MountFlags ExtensionImages ExtensionDirectories
    ReadWritePaths ReadOnlyPaths InaccessiblePaths ExecPaths NoExecPaths TemporaryFileSystem
    NetworkNamespacePath IPCNamespacePath
    NoNewPrivileges CapabilityBoundingSet AmbientCapabilities SecureBits LockPersonality Personality
    MemoryDenyWriteExecute RestrictAddressFamilies RestrictFileSystems RestrictNamespaces
    RestrictRealtime RestrictSUIDSGID RestrictNetworkInterfaces RemoveIPC
    SystemCallFilter SystemCallErrorNumber SystemCallArchitectures SystemCallLog
    SELinuxContext AppArmorProfile SmackProcessLabel KeyringMode
    User Group DynamicUser SupplementaryGroups PAMName SetLoginEnvironment WorkingDirectory
    DeviceAllow DevicePolicy
    IPAddressAllow IPAddressDeny IPIngressFilterPath IPEgressFilterPath BPFProgram
    SocketBindAllow SocketBindDeny
    MemoryMax MemoryHigh MemorySwapMax MemoryZSwapMax CPUQuota CPUQuotaPeriodSec CPUWeight
    StartupCPUWeight AllowedCPUs StartupAllowedCPUs AllowedMemoryNodes StartupAllowedMemoryNodes
    IOWeight StartupIOWeight IODeviceWeight IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax
    IOWriteIOPSMax IODeviceLatencyTargetSec DisableControllers DelegateSubgroup
    Nice CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork CPUAffinity NUMAPolicy
    NUMAMask IOSchedulingClass IOSchedulingPriority TimerSlackNSec CoredumpFilter IgnoreSIGPIPE
    LimitCPU LimitFSIZE LimitDATA LimitSTACK LimitRSS LimitAS LimitNPROC LimitLOCKS LimitSIGPENDING
    LimitMSGQUEUE LimitNICE LimitRTPRIO LimitRTTIME
    RuntimeMaxSec ExecSearchPath
    Environment EnvironmentFile PassEnvironment LoadCredential SetCredential LoadCredentialEncrypted
    SetCredentialEncrypted StandardInput StandardOutput StandardError TTYPath LogNamespace
    Slice
"""
DENIED = frozenset(DENIED_WORDS.split())

WANTED = {
    "Unit": {
        "Requires": "gpuqd.socket",
        "StartLimitIntervalSec": "60",
        "StartLimitBurst": "10",
    },
    "Service": {
        "Type": "notify",
        "NotifyAccess": "main",
        "ExecReload": "/bin/kill -HUP $MAINPID",
        "WatchdogSec": "30",
        "Restart": "on-failure",
        "RestartSec": "1",
        "RestartPreventExitStatus": "2 78",
        "KillMode": "process",
        "Delegate": "yes",
        "OOMPolicy": "continue",
        "UMask": "0077",
        "TasksMax": "infinity",
        "LimitCORE": "0:infinity",
    },
}
WANTED_OF_SYSTEM = {
    "OOMScoreAdjust": "-500",
    "StateDirectory": "gpuq",
    "StateDirectoryMode": "0711",
    "RuntimeDirectory": "gpuq",
    "RuntimeDirectoryMode": "0755",
    "RuntimeDirectoryPreserve": "yes",
    "LimitNOFILE": "65536:1048576",
    "LimitMEMLOCK": "infinity",
}
# Started before us, so there until we have left.
NEEDED_TO_THE_END = {
    *("gpuqd.socket", "dbus.service", "systemd-logind.service", "systemd-user-sessions.service"),
    *("nss-user-lookup.target", "network.target", "remote-fs.target", "autofs.service"),
    "nvidia-persistenced.service",
}
ONLY_ROOTS = {*WANTED_OF_SYSTEM, "User", "Group"}

Unit = dict[str, dict[str, list[str]]]

STATE = "/home/ann/my runs/100%"
USER_FLAGS = ("--state-dir", STATE)


def units(whose: str) -> dict[str, str]:
    if whose == "system":
        return system_units(sys.executable, "/var/lib/gpuq")
    return user_units(sys.executable, f"{STATE}/gpuq.sock", USER_FLAGS)


def parsed(text: str) -> Unit:
    found: Unit = {}
    section: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            section.setdefault(name, []).append(value)
    return found


def service_of(whose: str) -> Unit:
    return parsed(units(whose)["gpuqd.service"])


@pytest.mark.parametrize("whose", ["system", "user"])
def test_nothing_in_a_unit_reaches_a_job_as_a_sandbox_or_as_environment(whose: str) -> None:
    for name in ("gpuqd.service", "gpuqd.socket"):
        for section in parsed(units(whose)[name]).values():
            assert not section.keys() & DENIED


@pytest.mark.parametrize("whose", ["system", "user"])
def test_a_unit_has_what_keeps_the_daemon_alive_and_its_jobs_through_its_end(whose: str) -> None:
    found = service_of(whose)
    for section, wanted in WANTED.items():
        for name, value in wanted.items():
            assert found[section].get(name) == [value], name


def test_the_daemon_of_the_machine_has_what_only_root_may_set() -> None:
    found = service_of("system")["Service"]
    assert {name: found[name] for name in WANTED_OF_SYSTEM} == {
        name: [value] for name, value in WANTED_OF_SYSTEM.items()
    }


def test_a_users_unit_asks_for_nothing_that_only_root_may_have() -> None:
    assert not service_of("user")["Service"].keys() & ONLY_ROOTS


def test_at_a_shutdown_the_daemon_leaves_before_what_its_jobs_need() -> None:
    found = service_of("system")["Unit"]
    assert set(" ".join(found["After"]).split()) >= NEEDED_TO_THE_END
    assert found["RequiresMountsFor"] == ["/var/lib/gpuq"]
    assert "DefaultDependencies" not in found


@pytest.mark.parametrize(("whose", "flags"), [("system", "--system"), ("user", "--state-dir ")])
def test_no_environment_and_no_directory_decide_what_is_run(whose: str, flags: str) -> None:
    (command,) = service_of(whose)["Service"]["ExecStart"]
    assert command.startswith(f"{sys.executable} -I -m gpuq.daemon.main {flags}")
    assert os.path.isabs(command.split()[0])


@pytest.mark.parametrize(
    ("whose", "path", "mode", "folder_mode"),
    [
        ("system", "/run/gpuq/gpuq.sock", "0666", "0755"),
        ("user", f"{STATE.replace('%', '%%')}/gpuq.sock", "0600", "0700"),
    ],
)
def test_the_socket_is_where_clients_look_for_it(
    whose: str, path: str, mode: str, folder_mode: str
) -> None:
    found = parsed(units(whose)["gpuqd.socket"])["Socket"]
    assert found["ListenStream"] == [path]
    assert (found["SocketMode"], found["DirectoryMode"]) == ([mode], [folder_mode])
    assert "Service" not in found
    assert found["RemoveOnStop"] == ["yes"]


def test_both_start_at_boot() -> None:
    for whose, target in (("system", "multi-user.target"), ("user", "default.target")):
        assert service_of(whose)["Install"]["WantedBy"] == [target]
        socket = parsed(units(whose)["gpuqd.socket"])
        assert socket["Install"]["WantedBy"] == ["sockets.target"]


def test_every_line_that_surprises_has_its_reason() -> None:
    """KillMode, OOMPolicy and their like are asked about by each who reads the unit."""
    for whose in ("system", "user"):
        lines = units(whose)["gpuqd.service"].splitlines()
        for name in ("KillMode", "OOMPolicy", "UMask", "TasksMax", "LimitCORE", "TimeoutStopSec"):
            at = next(n for n, line in enumerate(lines) if line.startswith(f"{name}="))
            assert lines[at - 1].startswith("#"), (whose, name)


@pytest.mark.parametrize("whose", ["system", "user"])
def test_systemd_reads_the_units_without_a_word(whose: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NO SYSTEMD HERE (Debian: systemd): nobody has verified the unit files")
    for name, text in units(whose).items():
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "--man=no", f"--{whose}", "verify", "./gpuqd.service"]
    environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path), "HOME": "/"}
    ran = subprocess.run(
        [*command, "./gpuqd.socket"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stderr + ran.stdout, ran.returncode) == ("", 0)


def test_users_and_folders_of_the_machine_are_made_as_systemd_makes_them(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("systemd-tmpfiles") is None:
        pytest.skip("NOT ROOT, OR NO SYSTEMD HERE: nobody has tried sysusers and tmpfiles")
    (tmp_path / "root/etc").mkdir(parents=True)
    for tool, name in (("systemd-sysusers", "sysusers"), ("systemd-tmpfiles", "tmpfiles")):
        file = tmp_path / f"{name}.conf"
        file.write_text(units("system")[f"gpuq.{name}.conf"])
        create = ["--create"] if name == "tmpfiles" else []
        command = [tool, f"--root={tmp_path}/root", *create, str(file)]
        subprocess.run(command, check=True, capture_output=True)
    assert "gpuq-admin:" in (tmp_path / "root/etc/group").read_text()
    assert (tmp_path / "root/run/gpuq").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "root/var/lib/gpuq").stat().st_mode & 0o7777 == 0o711


def test_a_path_that_a_unit_cannot_hold_is_refused() -> None:
    for path in ("/home/ann/a\nExecStart=/bin/sh", "/home/ann/run ", "/home/\udcff"):
        with pytest.raises(UsageError, match="a unit cannot name the path"):
            user_units(sys.executable, f"{path}/gpuq.sock", ("--state-dir", path))
        with pytest.raises(UsageError, match="a unit cannot name the path"):
            system_units(sys.executable, path)


def test_what_lies_in_the_folder_of_the_project_is_shipped_all_of_it() -> None:
    project = Path(__file__).parents[2]
    assert os.path.samefile(project / "systemd", FOLDER)
    settings = tomllib.loads((project / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["gpuq.daemon.systemd"]
    shipped = {file for pattern in patterns for file in Path(FOLDER).parent.glob(pattern)}
    files = {file for file in Path(FOLDER).glob("**/*") if file.is_file()}
    assert {file for file in shipped if file.is_file()} == files
