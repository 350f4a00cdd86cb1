"""One daemon for the whole machine, which is root: what people submit runs as them, with what they have
and no more, and nobody gets at what is another's. The daemon, the users and the files are real ones."""

import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.daemon.attempt import record
from gpuq.daemon.linux import processes
from gpuq.errors import GpuqError
from tests.conftest import PATIENCE_S, until
from tests.many_users import ALICE, BOB, PROJECT_GROUP, ManyUsers, many_users

HOLD = "while ! [ -e {go} ]; do sleep 0.02; done"


@pytest.fixture(scope="module")
def machine() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.runtime_dir(ALICE)
        box.start()
        yield box


@pytest.fixture
def box(machine: ManyUsers) -> Iterator[ManyUsers]:
    """The one machine of all these tests, with all of its users."""
    yield machine
    machine.write_users()
    assert machine.daemon is not None
    assert machine.daemon.poll() is None, machine.log.read_text()


def ended(box: ManyUsers, job: int) -> dict[str, Any]:
    job_: dict[str, Any] = box.client("root").wait([job], timeout_s=PATIENCE_S)[0]
    return job_


def run(box: ManyUsers, user: str, script: str, **options: Any) -> dict[str, Any]:
    argv = ["/bin/sh", "-c", script]
    return ended(box, box.client(user).submit(argv, **{"gpus": 0, **options}))


def lines(box: ManyUsers, user: str, script: str, **options: Any) -> list[str]:
    """What a script that ends well writes."""
    job = run(box, user, script, **options)
    text = Path(job["log"]).read_text()
    assert job["outcome"] == "succeeded", (job["reason"], text)
    return text.splitlines()


def submitted(box: ManyUsers, user: str, *words: str, **how: Any) -> int:
    """By a command line, as typed."""
    ran = box.gpuq(user, "submit", *words, **how)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


def running(box: ManyUsers, job: int) -> int:
    """Its pid, once it runs."""
    root = box.client("root")
    until(lambda: root.job(job)["state"] == "running", f"job {job} to run")
    return int(root.job(job)["pid"])


def failed_to_start(box: ManyUsers, job: int) -> str:
    """Why, where the failure was that job's alone."""
    failed = ended(box, job)
    assert (failed["outcome"], failed["exit_code"]) == ("failed", 125), failed["reason"]
    assert run(box, "bob", "exit 0")["outcome"] == "succeeded", "the queue goes on"
    words: str = failed["reason"]
    return words.removeprefix("could not start: ")


def mode_of(path: Path) -> tuple[int, int]:
    """(owner, permissions)"""
    found = path.lstat()
    return found.st_uid, stat.S_IMODE(found.st_mode)


# ─── a job is its submitter ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("user", ["alice", "bob", "carol", "dave"])
def test_a_job_is_whom_a_login_would_be(box: ManyUsers, user: str) -> None:
    assert lines(box, user, "id -a") == box.run(user, "id", "-a").stdout.splitlines()


def test_no_right_of_root_is_left(box: ManyUsers) -> None:
    told = lines(box, "alice", "grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb))' /proc/self/status")
    facts = {name: value.split() for name, value in (line.split(":\t") for line in told)}
    assert facts["Uid"] == facts["Gid"] == [str(ALICE)] * 4
    assert facts["Groups"] == [str(ALICE), str(PROJECT_GROUP)]
    assert {int(facts[name][0], 16) for name in facts if name.startswith("Cap")} == {0}


def test_a_job_has_no_descriptor_but_three(box: ManyUsers) -> None:
    job = run(box, "alice", "cd /proc/$$/fd; for fd in *; do readlink $fd; done")
    assert Path(job["log"]).read_text().split() == ["/dev/null", job["log"], job["log"]]


def test_jobs_share_no_keys_of_the_kernel(box: ManyUsers) -> None:
    """A session keyring lets whoever has it at what is in it, whoever that is."""
    script = "awk '/ _ses: / { print $6 }' /proc/keys"
    assert str(ALICE) in lines(box, "alice", script)


def test_a_job_leads_its_own_group_and_ignores_no_signal(box: ManyUsers) -> None:
    script = "awk '{print $1 == $5}' /proc/$$/stat; grep -E 'Sig(Blk|Ign)' /proc/self/status"
    leads, *masks = lines(box, "alice", script)
    assert leads == "1"
    assert {int(mask.split()[1], 16) for mask in masks} == {0}


def test_umask_directory_and_environment_are_the_submitters(box: ManyUsers) -> None:
    place = box.home("alice") / "a place"
    box.run("alice", "mkdir", str(place))
    script = "umask; pwd; echo $ODD; : > made"
    job = submitted(
        box,
        "alice",
        *("-g0", "--", "sh", "-c", script),
        cwd=str(place),
        umask=0o027,
        env={"ODD": "größe  two"},
    )
    log = Path(ended(box, job)["log"])
    assert log.read_text().splitlines() == ["0027", str(place), "größe two"]
    assert mode_of(place / "made") == mode_of(log) == (ALICE, 0o640)


def test_what_a_login_has_is_filled_in(box: ManyUsers) -> None:
    job = box.run(
        "alice",
        *("env", "-i", f"GPUQ_SOCKET={box.socket}", "PATH=/usr/bin:/bin"),
        *(str(Path(sys.executable).parent / "gpuq"), "submit", "-g0", "--"),
        *("sh", "-c", "echo $HOME $USER $LOGNAME $SHELL"),
    ).stdout
    told = Path(ended(box, int(job))["log"]).read_text().split()
    assert told == [str(box.home("alice")), "alice", "alice", "/bin/sh"]
    kept = lines(box, "alice", "echo $HOME $SHELL", env={"HOME": "/else", "SHELL": "/bin/zsh"})
    assert kept == ["/else /bin/zsh"]


def test_a_runtime_directory_is_passed_on_if_it_is_there_and_the_users(box: ManyUsers) -> None:
    def told(user: str, path: str) -> list[str]:
        script = "echo ${XDG_RUNTIME_DIR-none}"
        return lines(box, user, script, env={"XDG_RUNTIME_DIR": path})

    assert told("alice", f"/run/user/{ALICE}") == [f"/run/user/{ALICE}"]
    assert told("bob", f"/run/user/{BOB}") == ["none"], "there is none"
    assert told("bob", f"/run/user/{ALICE}") == ["none"], "it is somebody else's"


def test_a_program_is_found_with_the_users_own_rights(box: ManyUsers) -> None:
    tools = box.home("alice") / "tools"
    make = f"mkdir -m 700 {tools}; printf '#!/bin/sh\\necho mine' > {tools}/tool; chmod +x {tools}/tool"
    box.run("alice", "sh", "-c", make)
    path = {"PATH": f"{tools}:/usr/bin:/bin"}
    alice, bob = (box.client(user).submit(["tool"], gpus=0, env=path) for user in ("alice", "bob"))
    assert Path(ended(box, alice)["log"]).read_text() == "mine\n"
    assert ended(box, bob)["reason"] == "could not start: executing tool: permission denied"


# ─── limits ──────────────────────────────────────────────────────────────────────────────────────

FORGE = """
import json, sys
from gpuq import capture
from gpuq.client import Client

spec = capture.spec({"argv": ["/bin/sh", "-c", sys.argv[1]], "gpus": 0}) | json.loads(sys.argv[2])
variables = capture.environment()
with Client() as client:
    answer = client.call(
        "submit", jobs=[spec], env_hash=capture.digest(variables), environment=variables
    )
print(answer["first"])
"""


def forged(
    box: ManyUsers, user: str, script: str, fields: str, before: str = ":"
) -> dict[str, Any]:
    """A job whose request says `fields` (JSON) as no gpuq would, by a process in whose shell
    `before` has been said."""
    words = [sys.executable, "-c", FORGE, script, fields]
    ran = box.run(user, "sh", "-c", f'{before}; exec "$@"', "sh", *words)
    assert ran.returncode == 0, ran.stderr
    return ended(box, int(ran.stdout))


def test_limits_are_the_submitters_hard_and_soft(box: ManyUsers) -> None:
    job = forged(box, "alice", "ulimit -Sn; ulimit -Hn", "{}", "ulimit -Sn 400; ulimit -Hn 500")
    assert Path(job["log"]).read_text().split() == ["400", "500"]


def test_a_forged_limit_gains_nothing(box: ManyUsers) -> None:
    fields = '{"limits": {"RLIMIT_NOFILE": 15000}, "hard_limits": {"RLIMIT_NOFILE": 15000}}'
    job = forged(box, "alice", "ulimit -Sn; ulimit -Hn", fields, "ulimit -n 500")
    assert Path(job["log"]).read_text().split() == ["500", "500"]


def test_a_limit_that_is_left_out_is_the_submitters_all_the_same(box: ManyUsers) -> None:
    job = forged(box, "alice", "ulimit -Sn; ulimit -Hn", '{"limits": {}}', "ulimit -n 500")
    assert Path(job["log"]).read_text().split() == ["500", "500"]


def test_nobody_becomes_another_by_saying_so(box: ManyUsers) -> None:
    fields = '{"uid": 0, "gid": 0, "user": "root", "groups": [0], "job_dir": "/etc/gpuq"}'
    job = forged(box, "alice", "id -a", fields)
    assert job["user"] == "alice"
    assert Path(job["log"]).read_text() == box.run("alice", "id", "-a").stdout
    assert not Path("/etc/gpuq").exists()


# ─── files ───────────────────────────────────────────────────────────────────────────────────────


def test_every_file_has_the_owner_that_it_should(box: ManyUsers) -> None:
    job = run(box, "alice", ': > "$GPUQ_OUTPUT_DIR/model"; echo said', umask=0o022)
    mine = box.state / "jobs" / str(job["id"])
    assert {path: mode_of(box.state / path) for path in (".", "jobs", "attempts", "gpuq.db")} == {
        ".": (0, 0o711),
        "jobs": (0, 0o711),
        "attempts": (0, 0o700),
        "gpuq.db": (0, 0o600),
    }
    assert mode_of(box.state / "attempts" / f"{job['id']}.1") == (0, 0o700)
    assert mode_of(mine) == mode_of(mine / "1") == (ALICE, 0o700)
    assert mode_of(mine / "1" / "log") == (ALICE, 0o644)
    assert os.readlink(mine / "output") == "1/output"
    assert {path.lstat().st_uid for path in mine.rglob("*")} == {ALICE}
    assert {path.lstat().st_gid for path in mine.rglob("*")} == {ALICE}


def test_a_temporary_directory_is_the_users_and_goes_with_the_job(box: ManyUsers) -> None:
    script = 'echo $TMPDIR; stat -c "%U %a" $TMPDIR; mkdir -p $TMPDIR/a/b; : > $TMPDIR/a/b/c'
    folder, owner = lines(box, "alice", script)
    assert owner == "alice 700"
    assert not Path(folder).exists()


def test_a_log_is_for_its_owner(box: ManyUsers) -> None:
    job = run(box, "alice", "echo a secret")["id"]
    assert box.gpuq("alice", "logs", str(job)).stdout == "a secret\n"
    for words in (("logs",), ("logs", "-f")):
        refused = box.gpuq("bob", *words, str(job))
        assert (refused.returncode, refused.stdout) == (5, "")
        assert f"the log of job {job} is readable to alice alone" in refused.stderr


def test_pruning_removes_what_a_job_left(box: ManyUsers) -> None:
    kept = box.folder / "precious"
    kept.mkdir(exist_ok=True)
    (kept / "file").write_text("kept")
    script = f'cd "$GPUQ_OUTPUT_DIR"; mkdir deep; : > deep/model; ln -s {kept} link'
    job = run(box, "alice", script)["id"]
    pruned = box.gpuq("alice", "prune", "--outputs", "--yes", str(job))
    assert pruned.returncode == 0, pruned.stderr
    until(lambda: not (box.state / "jobs" / str(job)).exists(), "the folder to go")
    assert not (box.state / "attempts" / f"{job}.1").exists()
    assert (kept / "file").read_text() == "kept"


def test_what_the_user_cannot_remove_is_not_removed_for_them(box: ManyUsers) -> None:
    """Root would follow no right but its own."""
    job = run(box, "alice", 'mkdir -m 777 "$GPUQ_OUTPUT_DIR/shared"; chmod 711 . ..')["id"]
    shared = box.state / "jobs" / str(job) / "1" / "output" / "shared"
    (shared / "of root").mkdir()
    (shared / "of root" / "file").write_text("kept")
    refused = box.gpuq("alice", "prune", "--outputs", "--yes", str(job))
    assert refused.returncode != 0
    assert "permission denied" in refused.stderr.lower()
    assert (shared / "of root" / "file").read_text() == "kept"


# ─── what goes wrong is that job's alone ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("argv", "asked", "code", "sentence"),
    [
        (["nonesuch"], {}, 127, "executing nonesuch: no such file"),
        (["/etc/passwd"], {}, 126, "executing /etc/passwd: permission denied"),
        (
            ["true"],
            {"cwd": "/etc/passwd"},
            125,
            "changing directory to /etc/passwd: not a directory",
        ),
        (["true"], {"output": "/etc"}, 125, "opening the log /etc: is a directory"),
        (["true"], {"stderr": "/etc/x"}, 125, "opening /etc/x: permission denied"),
        (
            ["true"],
            {"env": {"TMPDIR": "/etc"}},
            125,
            "making its temporary directory /etc/gpuq-",
        ),
    ],
)
def test_the_stage_that_failed_is_named(
    box: ManyUsers, argv: list[str], asked: dict[str, Any], code: int, sentence: str
) -> None:
    job = ended(box, box.client("alice").submit(argv, gpus=0, **asked))
    assert job["reason"].startswith(f"could not start: {sentence}")
    assert (job["outcome"], job["exit_code"]) == ("failed", code)


def test_a_directory_that_the_user_may_not_enter(box: ManyUsers) -> None:
    job = box.client("alice").submit(["true"], gpus=0, cwd=str(box.home("bob")))
    assert failed_to_start(box, job) == (
        f"changing directory to {box.home('bob')}: permission denied"
    )


def test_a_directory_that_only_the_user_may_enter(box: ManyUsers) -> None:
    assert lines(box, "alice", "pwd", cwd=str(box.home("alice"))) == [str(box.home("alice"))]


def test_a_home_that_is_gone(box: ManyUsers) -> None:
    job = box.client("alice").submit(["true"], gpus=0, cwd="/home/nowhere")
    assert failed_to_start(box, job) == "changing directory to /home/nowhere: no such directory"
    home = {"HOME": "/home/nowhere"}
    assert lines(box, "alice", "echo $HOME", cwd="/", env=home) == ["/home/nowhere"]


@pytest.mark.parametrize("where", ["{bob}/log", "/etc/gpuq-log", "{link}", "{alice}/../bob/log"])
def test_a_log_where_the_user_may_not_write(box: ManyUsers, where: str) -> None:
    link = box.home("alice") / "link"
    box.run("alice", "ln", "-sfn", "/etc/passwd", str(link))
    path = where.format(alice=box.home("alice"), bob=box.home("bob"), link=link)
    before = (box.folder / "etc" / "passwd").read_bytes()
    job = box.client("alice").submit(["echo", "x"], gpus=0, output=path)
    assert failed_to_start(box, job) == f"opening the log {path}: permission denied"
    assert (box.folder / "etc" / "passwd").read_bytes() == before
    assert not Path("/etc/gpuq-log").exists()


def test_a_full_disk_of_the_users_choice_holds_up_nobody(box: ManyUsers) -> None:
    """Where it is the daemon's own that is full, jobs go back to the queue and all of them wait."""
    full = box.folder / "full"
    full.mkdir()
    tiny = ("mount", "-t", "tmpfs", "-o", "nr_inodes=1,mode=1777", "tmpfs", str(full))
    assert box.run("root", *tiny).returncode == 0
    job = box.client("alice").submit(["true"], gpus=0, output=str(full / "log"))
    why = failed_to_start(box, job)
    assert why == f"opening the log {full / 'log'}: no space left on device"


def test_a_user_who_is_removed_while_the_job_waits(box: ManyUsers) -> None:
    root, go = box.client("root"), box.home("dave") / "go"
    root.drain("until dave is gone")
    job = box.client("dave").submit(["true"], gpus=0)
    box.remove_user("dave")
    root.drain(None)
    why = failed_to_start(box, job)
    assert why.startswith("becoming dave: uid 2004 is no user of this machine any more")
    assert not go.exists()


def test_a_user_who_is_removed_while_the_job_runs(box: ManyUsers) -> None:
    go = box.home("dave") / "go"
    script = f"echo $TMPDIR; {HOLD.format(go=go)}; exit 3"
    job = box.client("dave").submit(["/bin/sh", "-c", script], gpus=0)
    running(box, job)
    box.remove_user("dave")
    go.touch()
    after = ended(box, job)
    assert (after["outcome"], after["exit_code"]) == ("failed", 3)
    assert not Path(Path(after["log"]).read_text().strip()).exists(), "its temporary directory"


def test_a_folder_that_is_somebody_elses_is_refused(box: ManyUsers) -> None:
    """Nobody but root can have made it, so nobody is meant to find it."""
    newest = max(int(path.name) for path in (box.state / "jobs").iterdir())
    foreign = box.state / "jobs" / str(newest + 1)
    foreign.mkdir()
    os.chown(foreign, BOB, BOB)
    job = box.client("alice").submit(["true"], gpus=0)
    assert job == newest + 1
    assert failed_to_start(box, job) == (
        f"making its directories: its folder {job} belongs to uid {BOB}"
    )


def test_a_folder_that_was_not_yet_given_away_is(box: ManyUsers) -> None:
    """A crash came between the two."""
    newest = max(int(path.name) for path in (box.state / "jobs").iterdir())
    mine = box.state / "jobs" / str(newest + 1)
    mine.mkdir(0o700)
    job = run(box, "alice", "exit 0")
    assert (job["id"], job["outcome"]) == (newest + 1, "succeeded")
    assert mode_of(mine) == (ALICE, 0o700)


# ─── nobody gets at what is another's ────────────────────────────────────────────────────────────


def test_a_job_cannot_end_its_runner_or_write_its_own_end(box: ManyUsers) -> None:
    attempts = box.state / "attempts"
    script = (
        f"kill -9 $PPID; ls {attempts}; echo forged > {attempts}/$GPUQ_JOB_ID.1/record; "
        f"cat {box.state}/gpuq.db; mv {box.state}/jobs {box.state}/other; "
        f"mkdir {box.state}/jobs/999999; exit 7"
    )
    job = run(box, "alice", script)
    assert (job["outcome"], job["exit_code"]) == ("failed", 7)
    said = Path(job["log"]).read_text()
    assert said.lower().count("permission denied") == 5, said
    assert "not permitted" in said.lower(), said


def test_a_mark_in_somebody_elses_process_is_not_believed(box: ManyUsers) -> None:
    go = box.home("alice") / "never"
    script = f"echo $TMPDIR; setsid sleep 600 & {HOLD.format(go=go)}"
    job = box.client("alice").submit(["/bin/sh", "-c", script], gpus=0)
    pid = running(box, job)
    mark = next(
        word
        for word in Path(f"/proc/{pid}/environ").read_text().split("\0")
        if word.startswith("GPUQ_MARK=")
    )
    forger = box.popen("bob", "env", mark, "sleep", "600")
    accomplice = box.popen("alice", "env", mark, "sleep", "600")
    for other in (forger, accomplice):
        until(lambda: mark.encode() in environ(other.pid), "the mark")  # noqa: B023
    os.kill(processes.ancestors(pid)[0], signal.SIGKILL)
    lost = ended(box, job)
    assert lost["outcome"] == "lost"
    assert processes.identity(pid) is None, "its own processes are swept"
    assert accomplice.wait(PATIENCE_S) == -signal.SIGKILL, "so the mark was looked for"
    assert forger.poll() is None
    forger.kill()
    forger.wait()
    its_own = Path(Path(lost["log"]).read_text().strip())
    until(lambda: not its_own.exists(), "its temporary directory to go without its runner")


def environ(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def test_what_a_user_may_write_and_not_read_is_not_read_for_them(box: ManyUsers) -> None:
    shared, go = box.folder / "letterbox", box.home("alice") / "posted"
    shared.touch()
    shared.chmod(0o622)
    script = f"{HOLD.format(go=go)}; exit 1"
    asked = {"gpus": 0, "output": str(shared)}
    job = box.client("alice").submit(["/bin/sh", "-c", script], **asked)
    running(box, job)
    with shared.open("a") as file:
        file.write("a letter of somebody else\n")
    go.touch()
    ended(box, job)
    assert record_of(box, job)["last_output"] == ""


def test_what_a_failed_job_said_in_the_end_is_kept(box: ManyUsers) -> None:
    job = run(box, "alice", "echo no room on the device; exit 1")["id"]
    assert record_of(box, job)["last_output"] == "no room on the device\n"


def record_of(box: ManyUsers, job: int) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((attempt_dir(box, job) / record.RECORD).read_text())
    return told


def attempt_dir(box: ManyUsers, job: int) -> Path:
    return box.state / "attempts" / f"{job}.1"


def test_a_sign_of_life_of_a_users_job_is_seen(box: ManyUsers) -> None:
    go = box.home("alice") / "alive"
    script = f'echo "{{}}" >> $GPUQ_REPORT; {HOLD.format(go=go)}'
    job = box.client("alice").submit(["/bin/sh", "-c", script], gpus=0, heartbeat_s=60)
    until(lambda: record.last_beat(str(attempt_dir(box, job))), "a sign of life")
    go.touch()
    assert ended(box, job)["outcome"] == "succeeded"


def test_the_users_environment_is_not_the_runners(box: ManyUsers) -> None:
    evil = str(box.home("alice") / "evil.so")
    before = box.log.read_text()
    job = run(box, "alice", ":", env={"LD_PRELOAD": evil, "PYTHONPATH": "/home/alice"})
    assert f"'{evil}' from LD_PRELOAD" in Path(job["log"]).read_text(), "the job has it"
    assert "LD_PRELOAD" not in box.log.read_text().removeprefix(before)


def test_links_in_a_jobs_folder_lead_root_nowhere(box: ManyUsers) -> None:
    """The second attempt finds that the first has put something into its place."""
    script = 'ln -s /etc "$(dirname "$(dirname $GPUQ_REPORT)")/2"; exit 1'
    job = run(box, "alice", script, retries=1, backoff="0s")
    assert job["attempt"] == 2
    assert job["reason"].startswith("could not start: making its directories: permission denied")
    assert not Path("/etc/output").exists()


def test_a_job_reports_for_itself_and_nobody_elses_file_is_read_for_it(box: ManyUsers) -> None:
    mine = run(box, "alice", """echo '{"v": {"secret": 7}}' >> $GPUQ_REPORT""")
    assert mine["metrics"] == {"secret": 7}
    hers = Path(mine["log"]).with_name("report")
    for put in (f"ln -s {hers}", "mkfifo", "mkdir", f"ln {hers}"):
        script = f'rm "$GPUQ_REPORT"; {put} "$GPUQ_REPORT"; echo "{{}}" >> {hers}; :'
        job = run(box, "bob", script)
        assert (job["outcome"], job["metrics"], job["report_lines"]) == ("succeeded", {}, 0)
        is_there = not put.startswith(f"ln {hers}")  # which the kernel refuses already
        assert (job["report_trouble"] == "its report cannot be read: it is no file") is is_there
    assert hers.read_bytes().count(b"\n") == 1


def test_a_submitter_whose_limits_cannot_be_known_queues_nothing(box: ManyUsers) -> None:
    """Who has gone by the time that it is asked for; its child goes on with the connection."""
    script = (
        "import os, sys\nfrom gpuq.client import Client\n"
        "client = Client(); client.call('ping')\n"
        "parent = os.getpid()\n"
        "if os.fork(): os._exit(0)\n"
        "while os.path.exists(f'/proc/{parent}'): pass\n"
        "client._link._pid = os.getpid()\n"  # or it would make a connection of its own
        "try: print(client.submit(['true'], gpus=0))\n"
        "except Exception as error: print(error)\n"
    )
    said = box.run("alice", "sh", "-c", '"$@"; :', "sh", sys.executable, "-c", script).stdout
    assert "is gone" in said
    assert "Nothing was queued" in said


# ─── the daemon goes and comes ───────────────────────────────────────────────────────────────────


def test_a_users_job_outlives_a_killed_daemon(box: ManyUsers) -> None:
    go = box.home("alice") / "go"
    script = f"{HOLD.format(go=go)}; echo done; exit 42"
    job = box.client("alice").submit(["/bin/sh", "-c", script])
    pid = running(box, job)
    box.kill()
    assert processes.identity(pid) is not None
    box.start()
    assert box.client("root").job(job)["pid"] == pid
    go.touch()
    after = ended(box, job)
    assert (after["exit_code"], Path(after["log"]).read_text()) == (42, "done\n")


def test_an_adopted_job_of_a_user_can_be_ended_by_that_user(box: ManyUsers) -> None:
    job = box.client("alice").submit(["sleep", "600"], grace_s=5)
    pid = running(box, job)
    box.kill()
    box.start()
    with pytest.raises(GpuqError):
        box.client("bob").kill([job])
    box.client("alice").kill([job])
    assert ended(box, job)["outcome"] == "cancelled"
    assert processes.identity(pid) is None
