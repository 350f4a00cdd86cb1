"""One daemon for everybody, under a real systemd: whose jobs run as whom, and what the journal has."""

import json

from tests.conftest import until
from tests.systemd.box import SERVICE, Box


def test_each_job_runs_as_who_submitted_it_with_their_groups_and_log(shared_box: Box) -> None:
    jobs = {user: shared_box.submit(user, "id") for user in ("alice", "bob", "carol")}
    for user, id in jobs.items():
        ended = shared_box.until_state(id, "ended")
        assert ended["exit_code"] == 0, ended
        assert shared_box.gpuq("logs", str(id), user=user) == shared_box.says("id", user=user)
        log = shared_box.inside(ended["log"]).stat()
        assert str(log.st_uid) == shared_box.says("id", "-u", user)


def test_nobody_reads_the_log_of_another_but_root(shared_box: Box) -> None:
    id = shared_box.submit("alice", "-g", "0", "echo", "a secret")
    log = shared_box.until_state(id, "ended")["log"]
    assert shared_box.run("gpuq", "logs", str(id), user="bob", fails=True).stdout == ""
    shared_box.run("cat", log, user="bob", fails=True)
    assert "a secret" in shared_box.gpuq("logs", str(id), user="alice")
    assert "a secret" in shared_box.gpuq("logs", str(id), user="root")


def test_a_job_is_its_owners_to_end_and_an_admins(shared_box: Box) -> None:
    job = shared_box.held("alice")
    refused = shared_box.run("gpuq", "kill", str(job.id), user="bob", fails=True)
    assert refused.returncode == 5
    job.assert_untouched()
    shared_box.gpuq("kill", "--now", str(job.id), user="carol")
    assert shared_box.until_state(job.id, "ended")["outcome"] == "cancelled"


def test_a_job_sees_what_its_user_sees_and_no_sandbox(shared_box: Box) -> None:
    look = (
        "touch /tmp/of-alice $HOME/here; grep NoNewPrivs /proc/self/status; ls /dev | wc -l; umask; "
        "for kind in mnt net ipc uts pid user; do readlink /proc/self/ns/$kind; done"
    )
    id = shared_box.submit("alice", "-g", "0", "--shell", look)
    assert shared_box.until_state(id, "ended")["exit_code"] == 0
    own = shared_box.says("sh", "-c", look, user="alice")
    assert shared_box.gpuq("logs", str(id), user="alice") == own
    assert shared_box.inside("/tmp/of-alice").exists()


def test_a_job_inherits_nothing_of_the_service(shared_box: Box) -> None:
    id = shared_box.submit("alice", "-g", "0", "env")
    shared_box.until_state(id, "ended")
    names = {line.split("=")[0] for line in shared_box.gpuq("logs", str(id), user="alice").split()}
    of_systemd = ("NOTIFY_", "LISTEN_", "WATCHDOG_", "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID")
    assert not [name for name in names if name.startswith(of_systemd)]
    assert not names & {"STATE_DIRECTORY", "RUNTIME_DIRECTORY", "SYSTEMD_EXEC_PID"}


def test_the_journal_tells_of_a_job_in_fields_of_its_own(shared_box: Box) -> None:
    id = shared_box.submit("bob", "-g", "0", "sh", "-c", "exit 3")
    shared_box.until_state(id, "ended")
    entries = shared_box.journal(f"GPUQ_JOB={id}")
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {SERVICE}
    assert any("exit code 3" in entry["MESSAGE"] for entry in entries), entries


def test_root_is_root_to_a_service_that_an_admin_gave_a_namespace(shared_box: Box) -> None:
    """Not as it is installed, and all the same no reason to shut root out of its own daemon."""
    drop_in = f"/etc/systemd/system/{SERVICE}.d"
    shared_box.write(f"{drop_in}/private.conf", "[Service]\nPrivateTmp=yes\n")
    shared_box.run("systemctl", "daemon-reload")
    shared_box.run("systemctl", "restart", SERVICE)
    try:
        shared_box.gpuq("drain", "-m", "a look inside", user="root")
        shared_box.gpuq("drain", "--off", user="root")
    finally:
        shared_box.run("rm", "-r", drop_in)
        shared_box.run("systemctl", "daemon-reload")
        shared_box.run("systemctl", "restart", SERVICE)


def test_systemctl_status_says_what_the_daemon_has_to_do(shared_box: Box) -> None:
    job = shared_box.held("alice")
    until(
        lambda: "1 running" in shared_box.unit(SERVICE, "StatusText")["StatusText"],
        "a status with one running job",
    )
    job.assert_ends_with(0)


def test_a_daemon_of_ones_own_beside_it_has_no_gpus(shared_box: Box) -> None:
    own = "/home/bob/own"
    daemon = shared_box.start("gpuqd", "--state-dir", own, user="bob")
    try:
        aside = [f"GPUQ_STATE_DIR={own}", "GPUQ_AUTOSTART=0"]
        until(shared_box.inside(f"{own}/gpuq.sock").exists, "bob's own daemon")

        def gpus() -> int | None:
            status = ("gpuq", "daemon", "status", "--json")
            said = shared_box.run(*status, user="bob", environment=aside).stdout
            found: int | None = json.loads(said)["daemon"]["gpus"]
            return found

        until(lambda: gpus() is not None, "a look at the GPUs")
        assert gpus() == 0
    finally:
        shared_box.end(daemon)
