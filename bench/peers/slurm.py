"""Slurm (from Debian): the cluster standard, as a cluster of one node with a CPU for each slot, with
its own munge, on loopback, with the scheduling settings that it comes with. It runs from the folder
that its packages were unpacked into; nothing of it is installed."""

import getpass
import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench import proc
from bench.peers.installing import from_debian, with_its_libraries
from bench.room import Room

PACKAGE, PLUGINS = "slurm-wlm", "slurm-wlm"
PROOF = "usr/sbin/slurmctld-wlm"
READY_S, END_S = 20.0, 5.0
DAEMONS = 3
MUNGE_KEY_BYTES = 1024
SETTINGS = """
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={home}/munge.sock
CredType=cred/munge
PluginDir={libraries}/slurm-wlm
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={slots} State=UNKNOWN
PartitionName=bench Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    name = "Slurm"
    takes_many = True
    is_slow = True

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def version(self, room: Room) -> str:
        root = self._find(room)
        environment = with_its_libraries(root, room.environment(room.folder), PLUGINS)
        said = subprocess.run(
            [root / PROOF, "-V"], env=environment, capture_output=True, text=True, check=True
        )
        return said.stdout.split()[-1]

    def start(self, room: Room, slots: int) -> None:
        root, self._home = self._find(room), room.new_folder("slurm")
        self._binaries = root / "usr" / "bin"
        self._environment = with_its_libraries(
            root, room.environment(self._home, SLURM_CONF=str(self._home / "slurm.conf")), PLUGINS
        )
        self._write_settings(slots)
        sbin, home, host = root / "usr" / "sbin", self._home, host_name()
        key = home / "munge.key"
        self._run(
            *(sbin / "munged", "--foreground", "--force", f"--key-file={key}"),
            *(f"--socket={home}/munge.sock", f"--pid-file={home}/munged.pid"),
            *(f"--log-file={home}/munged.log", f"--seed-file={home}/munge.seed"),
        )
        proc.wait_for((home / "munge.sock").exists, "munged", timeout_s=READY_S)
        self._run(sbin / "slurmctld-wlm", "-D")
        self._run(sbin / "slurmd-wlm", "-D", "-N", host, "-d", sbin / "slurmstepd-wlm")
        proc.wait_for(self._is_ready, "Slurm's node", 0.2, READY_S)

    def submit(self, argv: Sequence[str]) -> None:
        self._sbatch(argv)

    def submit_many(self, argv: Sequence[str], number: int) -> None:
        self._sbatch(argv, f"--array=0-{number - 1}")

    def stop(self) -> None:
        """Its jobs first: a slurmd that is ended leaves them, and what watches each is a daemon."""
        if len(self._processes) == DAEMONS:
            self._client("scancel", "--quiet", "--user", getpass.getuser())
            with suppress(TimeoutError):
                proc.wait_for(self._has_no_jobs, "the end of Slurm's jobs", 0.1, END_S)
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._processes = []
        ours = proc.descendants(os.getpid())
        proc.end_all(pid for pid in ours if proc.command_line(pid).startswith("slurmstepd"))

    def _has_no_jobs(self) -> bool:
        return not self._client("squeue", "--noheader")

    def _write_settings(self, slots: int) -> None:
        home = self._home
        for folder in ("state", "spool"):
            (home / folder).mkdir()
        key = home / "munge.key"
        key.write_bytes(os.urandom(MUNGE_KEY_BYTES))
        key.chmod(0o400)
        settings = SETTINGS.format(
            home=home,
            host=host_name(),
            ports=free_ports(2),
            slots=slots,
            user=getpass.getuser(),
            libraries=self._environment["LD_LIBRARY_PATH"].split(":")[0],
        )
        (home / "slurm.conf").write_text(settings)

    def _run(self, *command: str | Path) -> None:
        with (self._home / "output").open("ab") as output:
            self._processes.append(
                subprocess.Popen(
                    command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            )

    def _is_ready(self) -> bool:
        for process in self._processes:
            if process.poll() is not None:
                log = (self._home / "output").read_text(errors="replace").strip()
                raise RuntimeError(f"one of its daemons ended: {log.splitlines()[-1:]}")
        return self._client("sinfo", "--noheader", "--format", "%T").strip() == "idle"

    def _sbatch(self, argv: Sequence[str], *flags: str) -> None:
        """A job of Slurm is a script, so a shell comes first and becomes the program."""
        script = self._home / "job.sh"
        script.write_text(f"#!/bin/sh\nexec {' '.join(argv)}\n")
        log = f"--output={self._home}/%A-%a.out"
        if not self._client("sbatch", "--parsable", log, *flags, str(script)):
            raise RuntimeError("sbatch took no job")

    def _client(self, program: str, *words: str) -> str:
        ran = subprocess.run(
            [self._binaries / program, *words],
            env=self._environment,
            cwd=self._home,
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.stdout

    def _find(self, room: Room) -> Path:
        return from_debian(room.peers, PACKAGE, PROOF)


def host_name() -> str:
    return socket.gethostname().partition(".")[0]


def free_ports(number: int) -> list[int]:
    """On loopback; they are free until somebody takes them."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
