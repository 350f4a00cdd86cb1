"""Writes docs/systemd-transcript.md: one daemon for a whole box, from nothing to its uninstall.

    .venv/bin/python docs/systemd_transcript.py          (as root)

A real systemd in a container, real users and processes; the GPUs are simulated. Takes a minute.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from transcripts import on_terminal  # noqa: E402

from tests.systemd import root as roots  # noqa: E402
from tests.systemd import wheels  # noqa: E402
from tests.systemd.box import SERVICE, Box  # noqa: E402
from tests.systemd.machine import why_not  # noqa: E402

PROCESSES = "ps -o user,pid,lstart,comm -u alice,bob | grep -v sleep"
NEXT_VERSION = "99.0.0"
TRAINS = "trap 'sleep 2; echo saved; exit 0' TERM; echo training; while :; do sleep 0.1; done"
ENDS_WHEN_TOLD = "until [ -e done ]; do sleep 0.1; done; exit"


class Transcript:
    def __init__(self, box: Box) -> None:
        self.box = box
        self.lines: list[str] = []

    def say(self, *lines: str) -> None:
        self.lines += [*lines, ""]

    def begin(self, title: str, *lines: str) -> None:
        self.say(f"## {title}")
        if lines:
            self.say(*lines)
        self.lines.append("```console")

    def end(self) -> None:
        self.lines += ["```", ""]

    def remark(self, text: str) -> None:
        self.lines.append(f"# {text}")

    def type(self, user: str, command: str) -> float:
        """Shows a command and what it printed; the seconds that it took."""
        began = time.monotonic()
        shown = self.run(user, command)
        seconds = time.monotonic() - began
        prompt = "root@box# " if user == "root" else f"{user}@box$ "
        self.lines += [f"{prompt}{command}", *shown.splitlines()]
        return seconds

    def run(self, user: str, command: str) -> str:
        plain = ["NO_COLOR=1", "TERM=dumb", "SYSTEMD_PAGER=cat", "SYSTEMD_COLORS=0"]
        shown = on_terminal(self.box.command(["sh", "-c", command], user, plain))
        return shown.replace(str(roots.PYTHON), "/opt/python")

    def until(self, user: str, command: str, words: str, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while words not in self.run(user, command):
            if time.monotonic() > deadline:
                raise SystemExit(f"{words!r} was not to be seen in {command!r}")
            time.sleep(0.1)


def main() -> None:
    if reason := why_not():
        raise SystemExit(f"no systemd can be booted here: {reason}")
    with tempfile.TemporaryDirectory(prefix="gpuq-box-") as folder:
        house = Path(folder) / "wheels"
        wheels.make_wheelhouse(house)
        newer = wheels.build_wheel(Path(folder) / "newer", NEXT_VERSION)
        roots.lay_out(Path(folder) / "box")
        box = Box(
            Path(folder) / "box",
            *(f"--bind-ro={house}:/wheels", f"--bind-ro={newer.parent}:/newer"),
        )
        try:
            box.boot()
            transcript = Transcript(box)
            write(transcript)
        finally:
            box.pull_the_plug()
    text = "\n".join(transcript.lines).rstrip("\n") + "\n"
    (HERE / "systemd-transcript.md").write_text(text)


def write(show: Transcript) -> None:
    show.say(
        "# One daemon for the whole box",
        "",
        "Written by `docs/systemd_transcript.py` from true commands in a container with a systemd of",
        f"its own ({systemd_version()}). The GPUs are simulated, as each screen says; users, jobs and",
        "processes are real.",
    )
    in_service = (restart, crash, frozen, upgrade, codes, journal, stopped)
    for part in (from_nothing, two_users, *in_service, shutdown, leave):
        part(show)


def systemd_version() -> str:
    said = subprocess.run(
        ["systemd-nspawn", "--version"], capture_output=True, text=True, check=True
    )
    return " ".join(said.stdout.split()[:2])


def from_nothing(show: Transcript) -> None:
    show.begin("From nothing to the first job of a second user", "/etc/gpuq/gpuq.toml is there.")
    steps = {
        "the environment": ("root", "python3 -m venv /opt/gpuq"),
        "gpuq with all that it needs, from wheels at hand": (
            *("root", "/opt/gpuq/bin/pip install -q --no-index --find-links /wheels gpuqd"),
        ),
        "the service": ("root", "/opt/gpuq/bin/gpuq daemon install --system"),
        "an admin and two users": (
            *("root", "for u in alice bob; do useradd -m $u; done; useradd -m -G gpuq-admin carol"),
        ),
        "alice's first job": ("alice", "gpuq run -g 1 id"),
        "bob's first job": ("bob", "gpuq run -g 1 id"),
    }
    seconds = {what: show.type(*step) for what, step in steps.items()}
    show.end()
    show.lines += ["| step | seconds |", "|---|---|"]
    show.lines += [f"| {what} | {taken:.1f} |" for what, taken in seconds.items()]
    show.say(f"| **from nothing to the end of bob's job** | **{sum(seconds.values()):.1f}** |")


def two_users(show: Transcript) -> None:
    show.begin("Two users, one queue")
    show.type("alice", f"gpuq submit -n train-a -g 2 --shell '{ENDS_WHEN_TOLD} 3'")
    show.type("bob", f"gpuq submit -n train-b -g 1 --shell '{ENDS_WHEN_TOLD} 5'")
    show.type("bob", "gpuq submit -n large -g 4 true")
    show.until("root", "gpuq status", "2 running")
    show.type("bob", "gpuq")
    show.type("bob", "gpuq logs 3")
    show.type("bob", "gpuq kill 3")
    show.type("root", PROCESSES)
    show.end()


def restart(show: Transcript) -> None:
    show.begin("A restart of the daemon", "The processes are the ones of before.")
    show.type("root", "systemctl restart gpuqd")
    show_jobs(show)
    show.end()


def crash(show: Transcript) -> None:
    show.begin("The daemon is killed", "systemd starts it again.")
    before = show.box.main_pid()
    show.type("root", "kill -9 $(systemctl show --value -p MainPID gpuqd)")
    show.box.until_active(other_than=before)
    show.type("root", "systemctl show -p MainPID -p NRestarts -p StatusText gpuqd")
    show_jobs(show)
    show.end()


def frozen(show: Transcript) -> None:
    drop_in = f"/etc/systemd/system/{SERVICE}.d"
    show.begin(
        "The daemon freezes",
        "The watchdog waits for 30 s, here for 2. A stopped process stands for one that hangs.",
    )
    short = f"printf '[Service]\\nWatchdogSec=2\\n' >{drop_in}/short.conf"
    show.run("root", f"mkdir {drop_in}; {short}; systemctl daemon-reload")
    show.run("root", "systemctl restart gpuqd")
    before = show.box.until_active()
    began = time.monotonic()
    show.type("root", "kill -STOP $(systemctl show --value -p MainPID gpuqd)")
    show.box.until_active(other_than=before)
    show.remark(f"{time.monotonic() - began:.1f} s later another one is there:")
    show.type("root", "journalctl -o cat UNIT=gpuqd.service | grep -i watchdog")
    show_jobs(show)
    show.run("root", f"rm -r {drop_in}; systemctl daemon-reload; systemctl restart gpuqd")
    show.end()


def upgrade(show: Transcript) -> None:
    show.begin("An upgrade with jobs running", "The newer version is this source with its number.")
    show.type("alice", "gpuq ping")
    show.type("root", "/opt/gpuq/bin/pip install -q --no-index --no-deps /newer/gpuqd-*.whl")
    show.type("root", "/opt/gpuq/bin/gpuq daemon install --system")
    show.type("alice", "gpuq ping")
    show_jobs(show)
    show.end()


def show_jobs(show: Transcript) -> None:
    show.type("root", PROCESSES)
    show.until("alice", "gpuq status", "simulated GPUs")
    show.type("alice", "gpuq status")


def codes(show: Transcript) -> None:
    show.begin("And their exit codes come back")
    show.type("alice", "touch done; gpuq wait 3; echo $?")
    show.type("bob", "touch done; gpuq wait 4; echo $?")
    show.type("bob", "gpuq wait 5; gpuq status -a")
    show.end()


def journal(show: Transcript) -> None:
    show.begin("The journal has fields to search by")
    show.type("root", "journalctl -u gpuqd -o cat GPUQ_JOB=3")
    show.type(
        "root", "journalctl -u gpuqd -o json-pretty GPUQ_JOB=3 -n 1 | grep -E 'GPUQ|MESSAGE\"'"
    )
    show.end()


def stopped(show: Transcript) -> None:
    show.begin("Stopped, and started by who asks", "systemd holds the socket.")
    show.type("root", "systemctl stop gpuqd.service; systemctl is-active gpuqd.service")
    show.type("bob", "gpuq run -g 0 echo here")
    show.type("root", "systemctl is-active gpuqd.service")
    show.end()


def shutdown(show: Transcript) -> None:
    show.begin(
        "The machine is shut down",
        "Jobs get TERM and their grace, and are told of as lost to it after the boot.",
    )
    show.type("alice", f'gpuq submit -n saves --shell "{TRAINS}"')
    show.until("alice", "gpuq logs @", "training")
    show.lines.append("root@box# systemctl poweroff")
    seconds = show.box.power_off()
    show.remark(f"{seconds:.1f} s later the machine is off, and is booted again")
    show.box.boot()
    show.box.until_active()
    show.type("alice", "gpuq logs @")
    show.type("alice", "gpuq why @")
    show.end()


def leave(show: Transcript) -> None:
    show.begin("Uninstalled, and the data kept")
    show.type("root", "gpuq daemon uninstall --system")
    show.type("root", f"systemctl status {SERVICE}; ls /var/lib/gpuq")
    show.end()


if __name__ == "__main__":
    main()
