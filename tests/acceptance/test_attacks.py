"""What a user of the machine may try against its daemon, the jobs of others, and root; each test is one
attack, and says what came of it. The daemon, the users and the files are real ones."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gpuq.daemon.linux import processes
from tests.acceptance.test_many_users import HOLD, ended, run, running
from tests.conftest import until
from tests.many_users import ManyUsers, many_users

FOLDER = 'folder=$(dirname "$(dirname "$GPUQ_REPORT")")'  # jobs/ID, in the script of a job


@pytest.fixture(scope="module")
def machine() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.start()
        yield box


@pytest.fixture
def box(machine: ManyUsers) -> Iterator[ManyUsers]:
    """The one machine of all these attacks, whose daemon has to live through each of them."""
    yield machine
    assert machine.daemon is not None
    assert machine.daemon.poll() is None, machine.log.read_text()
    assert run(machine, "bob", "exit 0")["outcome"] == "succeeded", "others are served as before"


# ─── what a job finds in its own folder it may change: the next attempt, and root, find that ─────


def test_a_pipe_in_the_place_of_an_index_holds_up_no_runner(box: ManyUsers) -> None:
    """A runner that is root writes it; a pipe that is full would let it wait for ever."""
    go = box.home("alice") / "piped"
    pipe_up = f'{FOLDER}; mkdir -p "$folder/2"; mkfifo "$folder/2/log.index"'
    script = f"{pipe_up}; {HOLD.format(go=go)}; exit 1"
    job = box.client("alice").submit(["/bin/sh", "-c", script], gpus=0, retries=1, backoff="0s")
    running(box, job)
    pipe = box.state / "jobs" / str(job) / "2" / "log.index"
    until(pipe.exists, "the pipe")
    fill = "exec 3<>$0; head -c 65536 /dev/zero >&3; : > $1; exec sleep 600"
    keeper = box.popen("alice", "sh", "-c", fill, str(pipe), str(go))
    after = ended(box, job)
    keeper.kill()
    keeper.wait()
    assert (after["attempt"], after["outcome"], after["exit_code"]) == (2, "failed", 1)


@pytest.mark.parametrize("options", ["nr_inodes=1", "ro"], ids=["full", "read-only"])
def test_a_disk_that_a_user_has_chosen_stops_the_queue_of_nobody(
    box: ManyUsers, options: str
) -> None:
    """A link in the place of the next attempt's folder leads to a disk without room."""
    disk = box.folder / options.partition("=")[0]
    disk.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"mode=1777,{options}", "tmpfs", str(disk))
    assert box.run("root", *mount).returncode == 0
    script = f'{FOLDER}; [ -e "$folder/2" ] || ln -s {disk} "$folder/2"; exit 1'
    job = box.client("alice").submit(["/bin/sh", "-c", script], gpus=0, retries=1, backoff="0s")
    after = ended(box, job)
    assert (after["attempt"], after["exit_code"]) == (2, 125)
    assert after["reason"].startswith("could not start: making its directories: ")
    assert "cannot start" not in box.log.read_text()


# ─── root, and what a user has put where root looks ──────────────────────────────────────────────


@pytest.mark.parametrize("words", [(), ("-f",), ("-n", "5"), ("-t",), ("--stderr",)], ids=str)
def test_root_who_reads_a_log_is_led_to_nothing_that_its_owner_may_not_read(
    box: ManyUsers, words: tuple[str, ...]
) -> None:
    secret = box.home("root") / "secret"
    secret.write_text("the secret of root\n")
    errors = box.home("alice") / f"errors-{len(words)}{''.join(words)}"
    links = " ".join(f'"$folder/1/{name}"' for name in ("log", "log.index"))
    script = f"{FOLDER}; for name in {links} {errors}; do ln -sf {secret} $name; done"
    job = run(box, "alice", script, stderr=str(errors))["id"]
    assert (box.state / "jobs" / str(job) / "1" / "log").read_text() == "the secret of root\n"
    told = box.gpuq("root", "logs", *words, str(job))
    assert "secret of root" not in told.stdout
    assert told.returncode != 0


def test_root_reads_the_log_of_who_is_no_user_any_more(box: ManyUsers) -> None:
    """By the rights of whom its folder belongs to, then."""
    job = run(box, "dave", "echo kept")["id"]
    box.remove_user("dave")
    told = box.gpuq("root", "logs", str(job))
    box.write_users()
    assert (told.stdout, told.returncode) == ("kept\n", 0)


# ─── requests that are made to keep the daemon from all others ───────────────────────────────────

# Sends each line of stdin after a hello, and prints what is answered to the last one of them.
FLOOD = """
import os, socket, sys
lines = sys.stdin.buffer.read().splitlines(keepends=True)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(os.environ["GPUQ_SOCKET"])
    line = sock.makefile("rwb")
    line.write(b'{"hello": {"version": "1", "protocol": 1}}\\n' + b"".join(lines))
    line.flush()
    for _ in range(len(lines) + 1):
        answer = line.readline()
    print(answer.decode())
"""


def flood(box: ManyUsers, user: str, *requests: dict[str, Any]) -> dict[str, Any]:
    lines = "".join(json.dumps({"id": 1} | one) + "\n" for one in requests)
    ran = box.run(user, sys.executable, "-c", FLOOD, input=lines)
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


MANY = 300_000


@pytest.mark.parametrize(
    "refs",
    [
        [f"{n}-99999999" for n in range(1, MANY)],
        [",".join(["1-99999999"] * MANY)],
        [f"{2 * n}" for n in range(MANY)],
        [f"@~{n}" for n in range(MANY)],
        [f"g{n}" for n in range(MANY)],
        ["1-9" + "9" * 5000],
    ],
    ids=["overlapping", "repeated", "apart", "submissions", "groups", "endless"],
)
def test_jobs_that_are_named_a_hundred_thousand_times_are_not_looked_up(
    box: ManyUsers, refs: list[str]
) -> None:
    """All others would wait meanwhile."""
    assert flood(box, "bob", {"do": "wait", "refs": refs})["error"]["code"] == "usage"


def test_ranges_that_overlap_are_looked_up_once(box: ManyUsers) -> None:
    """Of a few thousand jobs each would be looked at twenty thousand times."""
    root, digest = box.client("root"), sha256(b"").hexdigest()
    root.drain("until bob has tried it")
    jobs = [{"argv": ["true"], "cwd": "/", "gpus": 0}] * 4000
    asked = {"do": "submit", "jobs": jobs, "env_hash": digest, "environment": []}
    first = flood(box, "bob", asked)["ok"]["first"]
    refs = [f"{first}-{2**40 + n}" for n in range(20_000)]
    assert len(flood(box, "bob", {"do": "status", "refs": refs})["ok"]["jobs"]) == 500
    box.client("bob").kill([f"{first}-{first + 3999}"])
    root.drain(None)


@pytest.mark.parametrize(
    "line",
    [
        "[" * 2_000_000,
        '{"do":' + '{"a":' * 1_000_000,
        '{"id": [[[[1]]]], "do": "ping"}',
        '{"do": "kill", "refs": [NaN, Infinity, -1, 1e999, null, {}, []]}',
        '{"do": "kill", "refs": [' + "9" * 6000 + "]}",
        '{"do": "submit", "jobs": [' + ",".join(["{}"] * 10_001) + "]}",
        '{"do": "\\ud800", "refs": ["\\udfff\\u0000"]}',
        '{"do": "status", "name": "\\ud800", "states": [{}], "since": 1e308}',
        '{"do": "explain", "pid": 1e5}',
        '{"do": "events", "since": 99999999999999999999999}',
        "\x00" * 100_000,
    ],
    ids=range(11),
)
def test_a_line_that_makes_no_sense_costs_its_sender_an_error_and_nobody_else_anything(
    box: ManyUsers, line: str
) -> None:
    ran = box.run("bob", sys.executable, "-c", FLOOD, input=line + "\n")
    answer = json.loads(ran.stdout)
    assert "error" in answer
    assert "the daemon failed" not in answer["error"]["message"]


def test_who_holds_four_thousand_connections_locks_out_nobody(box: ManyUsers) -> None:
    script = (
        "import os, resource, socket, time\n"
        "most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n"
        "held = []\n"
        "try:\n"
        "    for _ in range(6000):\n"
        "        held.append(socket.socket(socket.AF_UNIX))\n"
        "        held[-1].connect(os.environ['GPUQ_SOCKET'])\n"
        "        held[-1].send(b'{')\n"
        "except OSError: pass\n"
        "print(len(held), flush=True); time.sleep(600)"
    )
    hoarder = box.popen("bob", sys.executable, "-c", script, stdout=subprocess.PIPE, text=True)
    assert hoarder.stdout is not None
    assert int(hoarder.stdout.readline()) > 100
    assert box.gpuq("alice", "ping").returncode == 0
    assert run(box, "alice", "exit 0")["outcome"] == "succeeded"
    hoarder.kill()
    hoarder.communicate()


# ─── becoming somebody else ──────────────────────────────────────────────────────────────────────


def test_no_field_of_a_request_reaches_what_root_does(box: ManyUsers) -> None:
    """Whatever the order to a runner is made of besides what was asked, the daemon itself says."""
    forged = {
        "uid": 0,
        "gid": 0,
        "user": "root",
        "groups": [0],
        "hard_limits": {"RLIMIT_NOFILE": -1},
        "job_dir": "/etc/forged",
        "attempt_dir": "/etc/forged",
        "nonce": "../../etc",
        "job": 1,
        "log": "/etc/forged",
        "log_index": "/etc/forged",
        "report": "/etc/forged",
        "scope": "/",
        "cgroup": "/sys/fs/cgroup",
        "output_dir": "/etc/forged",
        "tmp_dir": "/etc/forged",
        "array_index": -1,
        "state": "running",
        "started_at": 1,
        "mark": "1.1:0",
        "attempt": 7,
        "limits": {"RLIMIT_NOFILE": -1, "__class__": 1, "prlimit": 1, "RLIMIT_FORGED": 1},
        "changes": {"GPUQ_OUTPUT_DIR": "/etc", "GPUQ_REPORT": "/etc", "GPUQ_MARK": "1.1:0"},
    }
    words = ["sh", "-c", "id -u; env | grep GPUQ_"]
    digest = sha256(b"PATH=/usr/bin:/bin\0").hexdigest()
    asked = {"jobs": [{"argv": words, "cwd": "/", "gpus": 0} | forged], "env_hash": digest}
    answer = flood(box, "alice", {"do": "submit", "environment": ["PATH=/usr/bin:/bin"], **asked})
    job = ended(box, answer["ok"]["first"])
    said = Path(job["log"]).read_text().splitlines()
    assert (job["user"], job["attempt"], said[0]) == ("alice", 1, "2001")
    assert "GPUQ_MARK=1.1:0" not in said
    assert f"GPUQ_OUTPUT_DIR={box.state}/jobs/{job['id']}/1/output" in said
    assert not Path("/etc/forged").exists()


def test_what_an_environment_has_python_shells_and_loaders_do_is_never_done_as_root(
    box: ManyUsers,
) -> None:
    home = box.home("alice")
    trap = f"import os; open('{home}/who', 'a').write(f'{{os.geteuid()}}\\n')"
    make = (
        f"mkdir -p {home}/trap; cd {home}/trap; : > {home}/who; chmod 666 {home}/who; "
        f'for name in sitecustomize usercustomize json socket gpuq; do echo "{trap}" > $name.py; done; '
        f"printf '#!/bin/sh\\nid -u >> {home}/who\\nexec /bin/sh \"$@\"\\n' > sh; "
        "for name in rm systemctl python3 true; do cp sh $name; done; chmod +x *; cp sh env"
    )
    assert box.run("alice", "/bin/sh", "-c", make).returncode == 0
    env = {
        "PATH": f"{home}/trap:/usr/bin:/bin",
        "PYTHONPATH": f"{home}/trap",
        "PYTHONSTARTUP": f"{home}/trap/json.py",
        "BASH_ENV": f"{home}/trap/sh",
        "ENV": f"{home}/trap/sh",
        "LD_LIBRARY_PATH": f"{home}/trap",
        "PYTHONHOME": "/nowhere",
        "LD_PRELOAD": f"{home}/trap/none.so",
        "LD_AUDIT": f"{home}/trap/none.so",
        "NOTIFY_SOCKET": f"{home}/notify",
        "LISTEN_FDS": "3",
        "LISTEN_PID": "1",
        "HOME": str(home),
    }
    script = ': > "$GPUQ_OUTPUT_DIR/x"; : > "$TMPDIR/x"; exit 1'
    asked = {"cwd": f"{home}/trap", "env": env, "retries": 1, "backoff": "0s"}
    job = box.client("alice").submit(["sh", "-c", script], gpus=0, **asked)
    assert ended(box, job)["attempt"] == 2
    assert box.gpuq("alice", "prune", "--outputs", "--yes", str(job)).returncode == 0
    until(lambda: not (box.state / "jobs" / str(job)).exists(), "the folder to go")
    who = (home / "who").read_text().split()
    assert who, "the trap works"
    assert set(who) == {"2001"}


def test_a_job_signals_traces_and_writes_to_no_process_of_root(box: ManyUsers) -> None:
    """But for CONT to its runner, which the kernel lets everybody send within a session, and which
    does nothing to who runs."""
    script = (
        "for pid in $(ps -o pid= -u root); do for word in 9 STOP TERM USR1; do "
        "kill -$word $pid 2> /dev/null && echo signalled $pid; done; "
        "for file in mem environ fd/0 cwd oom_score_adj; do "
        "[ -r /proc/$pid/$file ] && [ $file != oom_score_adj ] && echo reads $pid $file; "
        "[ -w /proc/$pid/$file ] && echo writes $pid $file; done; done; "
        "for group in $(find /sys/fs/cgroup -name cgroup.procs 2> /dev/null); do "
        "[ -w $group ] && echo enters $group; done; :"
    )
    job = run(box, "alice", script)
    assert (job["outcome"], Path(job["log"]).read_text()) == ("succeeded", "")


def test_a_connection_is_of_who_made_it_whoever_speaks_on_it(box: ManyUsers) -> None:
    """So a program that is set-uid root gains nothing for who hands it a connection."""
    script = (
        "import os, socket\n"
        "ours, theirs = socket.socketpair()\n"
        "if not os.fork():\n"
        "    ours.close(); os.setresgid(2001, 2001, 2001); os.setresuid(2001, 2001, 2001)\n"
        "    line = socket.socket(socket.AF_UNIX); line.connect(os.environ['GPUQ_SOCKET'])\n"
        "    socket.send_fds(theirs, [b'x'], [line.fileno()]); os.read(theirs.fileno(), 1)\n"
        "    os._exit(0)\n"
        "fd = socket.recv_fds(ours, 1, 1)[1][0]\n"
        "line = socket.socket(fileno=fd).makefile('rwb')\n"
        'line.write(b\'{"hello": {"protocol": 1}}\\n{"id": 1, "do": "stop"}\\n\'); line.flush()\n'
        "line.readline(); print(os.geteuid(), line.readline().decode())\n"
    )
    said = box.run("root", sys.executable, "-c", script).stdout
    assert said.startswith("0 ")
    assert "only an admin may stop this daemon" in said


def test_a_socket_that_another_user_serves_is_told_nothing(box: ManyUsers) -> None:
    place = box.folder / "public"
    place.mkdir(exist_ok=True)
    place.chmod(0o1777)
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "import os; os.chmod(sys.argv[1], 0o666); print('ready', flush=True)\n"
        "for _ in range(2): print(s.accept()[0].recv(100), flush=True)"
    )
    squat = str(place / "gpuq.sock")
    thief = box.popen("bob", sys.executable, "-c", script, squat, stdout=subprocess.PIPE, text=True)
    assert thief.stdout is not None
    assert thief.stdout.readline() == "ready\n"
    for user in ("alice", "root"):
        told = box.gpuq(user, "submit", "-g0", "--", "true", env={"GPUQ_SOCKET": squat})
        assert told.returncode != 0
        assert "which is neither you nor root; nothing was sent to it" in told.stderr
    assert thief.communicate()[0] == "b''\nb''\n"


def test_root_by_sudo_takes_neither_settings_nor_a_state_from_a_users_home(box: ManyUsers) -> None:
    home = box.home("alice")
    (home / ".config" / "gpuq").mkdir(parents=True)
    (home / ".config" / "gpuq" / "gpuq.toml").write_text('socket = "/tmp/of-alice.sock"\n')
    env = {"HOME": str(home), "GPUQ_SOCKET": "", "GPUQ_AUTOSTART": "0"}
    told = box.gpuq("root", "ping", env=env)
    assert told.returncode != 0
    assert "alice" not in told.stderr, told.stderr
    assert str(box.home("root")) in told.stderr


# ─── files ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "where",
    [
        *(f"/proc/self/fd/{number}" for number in range(12)),
        *("/dev/tty", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/full", "/dev/zero"),
        *("/proc/self/mem", "/proc/self/oom_score_adj", "/proc/self/comm", "/proc/1/mem"),
        *("/proc/self/cwd", "/proc/thread-self/root", "{state}/gpuq.db", "{state}/lock"),
        *("{state}/jobs/1/1/log", "{state}/jobs/x", "{state}/attempts/1.1/record"),
        *("{home}/pipe", "{home}", "{home}/../bob/x", "/etc/passwd", "/x" * 2000, "{socket}"),
    ],
)
def test_whatever_an_output_names_root_writes_nothing_to_it(box: ManyUsers, where: str) -> None:
    path = where.format(state=box.state, home=box.home("alice"), socket=box.socket)
    box.run("alice", "sh", "-c", "[ -e pipe ] || mkfifo pipe")
    before = (box.folder / "etc" / "passwd").read_bytes(), (box.state / "lock").read_bytes()
    words = ["sh", "-c", "echo forged-words; echo forged-words >&2; exit 3"]
    for asked in ({"output": path}, {"stderr": path}):
        job = ended(box, box.client("alice").submit(words, gpus=0, **asked))
        assert job["exit_code"] in (3, 125, 2), job
    assert (
        (box.folder / "etc" / "passwd").read_bytes(),
        (box.state / "lock").read_bytes(),
    ) == before
    assert "forged-words" not in box.log.read_text()


def test_a_directory_that_is_swapped_after_the_submit_is_entered_with_the_users_rights(
    box: ManyUsers,
) -> None:
    root, place = box.client("root"), box.home("alice") / "swapped"
    for name, asked in (("cwd", {"cwd": str(place)}), ("output", {"output": f"{place}/log"})):
        box.run("alice", "sh", "-c", f"rm -rf {place}; mkdir {place}")
        root.drain("until it is swapped")
        job = box.client("alice").submit(["sh", "-c", "echo x > taken"], gpus=0, **asked)
        box.run("alice", "sh", "-c", f"rmdir {place}; ln -s {box.home('bob')} {place}")
        root.drain(None)
        after = ended(box, job)
        assert (after["exit_code"], "permission denied" in after["reason"]) == (125, True), name
    assert not list(box.home("bob").glob("*"))


def test_links_that_are_swapped_all_the_time_lead_root_nowhere(box: ManyUsers) -> None:
    """While attempts follow each other, and while they are counted and removed."""
    precious = box.folder / "precious of root"
    (precious / "output").mkdir(parents=True)
    for name in ("log", "log.index", "report", "output/kept"):
        (precious / name).write_text("kept")
    script = (
        "import os, sys, itertools\n"
        "folder, precious = sys.argv[1:]\n"
        "for n in itertools.count():\n"
        "  for name in ('2', '3', '1/output', '2/output', '1/log', '2/log.index', '2/report'):\n"
        "    path = f'{folder}/{name}'\n"
        "    try:\n"
        "      os.symlink(precious, f'{folder}/link'); os.rename(f'{folder}/link', path)\n"
        "    except OSError: pass\n"
        "    try:\n"
        "      os.rename(path, f'{folder}/old{n % 50}')\n"
        "      os.mkdir(path); os.mkdir(f'{path}/output')\n"
        "    except OSError: pass\n"
        "    try: os.unlink(path)\n"
        "    except OSError: pass\n"
    )
    alice = box.client("alice")
    jobs, swappers = [], []
    for _ in range(2):
        job = alice.submit(["sh", "-c", "sleep 0.05; exit 1"], gpus=0, retries=8, backoff="0s")
        folder = box.state / "jobs" / str(job)
        until(folder.exists, "its folder")
        swappers.append(
            box.popen("alice", sys.executable, "-c", script, str(folder), str(precious))
        )
        jobs.append(job)
    for job in jobs:
        ended(box, job)
        box.gpuq("alice", "prune", "--outputs", "--dry-run", str(job))
        for _ in range(3):
            box.gpuq("root", "logs", str(job))
            box.gpuq("alice", "prune", "--outputs", "--yes", str(job))
    for swapper in swappers:
        swapper.kill()
        swapper.wait()
    assert sorted(path.name for path in precious.rglob("*")) == sorted(
        ["log", "log.index", "report", "output", "kept"]
    )
    assert all(p.read_text() == "kept" for p in precious.rglob("*") if p.is_file())
    assert {path.stat().st_uid for path in precious.rglob("*")} == {0}


DEEP = "import os; [(os.mkdir(name), os.chdir(name)) for name in 3000 * (chr(100),)]"


@pytest.mark.parametrize(
    "deed",
    [
        'rm "$GPUQ_REPORT"; mkfifo "$GPUQ_REPORT"',
        'rm "$GPUQ_REPORT"; ln -s /dev/zero "$GPUQ_REPORT"',
        'rm "$GPUQ_REPORT"; mkdir "$GPUQ_REPORT"',
        'truncate -s 4E "$GPUQ_REPORT"',
        'cd "$folder/1"; truncate -s 4E log; truncate -s 4E log.index',
        'cd "$folder/1"; rm log; mkfifo log; ln -sf /dev/zero log.index',
        'mv "$folder/1" "$folder/elsewhere"; ln -s /etc "$folder/1"',
        'chmod 0 "$folder"',
        'rm -rf "$folder/1" "$TMPDIR"; ln -s /etc "$TMPDIR"',
        f"cd \"$TMPDIR\"; {sys.executable} -c '{DEEP}'",
    ],
    ids=range(10),
)
def test_whatever_a_job_makes_of_its_files_its_end_is_told(box: ManyUsers, deed: str) -> None:
    script = f"{FOLDER}; {deed}; exit 5"
    job = run(box, "alice", script, heartbeat_s=60)
    assert (job["outcome"], job["exit_code"]) == ("failed", 5)


# ─── processes ───────────────────────────────────────────────────────────────────────────────────


def test_what_a_job_leaves_as_root_ends_with_it(box: ManyUsers) -> None:
    """A program that is set-uid, as sudo is: its user cannot signal it any more, and gpuq can."""
    tool = box.folder / "as-root"
    tool.write_bytes(Path("/bin/sleep").read_bytes())
    tool.chmod(0o4755)
    script = f"setsid {tool} 600 & echo $!; sleep 0.2; grep Uid /proc/$!/status"
    job = run(box, "alice", script, grace_s=0)
    pid, uids = Path(job["log"]).read_text().splitlines()
    assert uids.split()[1:3] == ["2001", "0"], "it is root"
    assert processes.identity(int(pid)) is None


def test_who_stops_the_process_that_becomes_his_job_stops_nothing_else(box: ManyUsers) -> None:
    """It is his before it is the job, and its runner waits for a word of it."""
    watch = (
        "import os, signal\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    last = int(open('/proc/loadavg').read().split()[-1])\n"
        "    for pid in range(max(last - 60, os.getpid() + 1), last + 16):\n"
        "        try:\n"
        "            os.kill(pid, signal.SIGSTOP)\n"
        "            if os.stat(f'/proc/{pid}/status').st_uid == 0: raise SystemExit(print(pid))\n"
        "            os.kill(pid, signal.SIGCONT)\n"
        "        except OSError: pass\n"
    )
    alice, carol = box.client("alice"), box.client("carol")
    for client in (alice, carol):  # who asks for her is hers as well, and is there by then
        client.call("status", limit=1)
    watcher = box.popen("alice", sys.executable, "-c", watch, stdout=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "ready\n"
    os.set_blocking(watcher.stdout.fileno(), False)
    jobs: list[int] = []

    def hit() -> bool:
        jobs.extend(alice.submit(["true"], gpus=0) for _ in range(4))
        assert watcher.stdout is not None
        return bool(watcher.stdout.readline())

    until(hit, "a process that was stopped in time")
    watcher.kill()
    watcher.wait()
    watcher.stdout.close()
    assert run(box, "bob", "exit 0")["outcome"] == "succeeded"
    carol.kill(jobs, grace_s=0)
    for job in jobs:
        ended(box, job)


# ─── what is shown ───────────────────────────────────────────────────────────────────────────────


def test_no_sign_of_a_user_reaches_the_terminal_of_root_as_a_command_to_it(box: ManyUsers) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e\r\n\x9b31m"
    place = box.home("alice") / evil
    place.mkdir()
    place.chmod(0o777)
    job = box.client("alice").submit(
        ["sh", "-c", f"exit 1 # {evil}", evil], gpus=0, cwd=str(place), env={"X": evil}
    )
    ended(box, job)
    other = box.client("alice").submit(
        [evil], gpus=0, output=f"{place}/log", stderr=f"{place}/{evil}"
    )
    ended(box, other)
    words = (["status", "-a"], ["show", str(job)], ["show", str(other)], ["events", str(job)])
    for asked in (
        *words,
        ["logs", str(job)],
        ["wait", str(job)],
        ["prune", "--dry-run"],
        ["doctor"],
    ):
        told = box.gpuq("root", *asked)
        shown = told.stdout + told.stderr
        assert not [c for c in shown if c not in "\n\t" and not c.isprintable()], (asked, shown)
