"""The machine goes down with jobs running: they get TERM and their grace, and are `lost`, with why."""

from tests.conftest import until
from tests.systemd.box import Box

# Says that it is ready; on TERM takes two seconds to save, as a trainer does, and says so.
SAVES = (
    "import pathlib, signal, sys, time\n"
    "def save(*_):\n"
    "    time.sleep(2)\n"
    "    pathlib.Path('saved').write_text('all of it')\n"
    "    sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, save)\n"
    "pathlib.Path('ready').touch()\n"
    "while True: signal.pause()\n"
)
STUBBORN = "trap '' TERM; touch ready; while :; do sleep 0.1; done"


def test_jobs_save_their_work_at_a_shutdown_and_are_lost_to_it(
    shared_box: Box, report: list[str]
) -> None:
    shared_box.run("mkdir", "one", "two", user="alice")
    saving = shared_box.submit("alice", "-C", "/home/alice/one", "--", "python3", "-c", SAVES)
    stubborn = shared_box.submit(
        *("alice", "-C", "/home/alice/two", "--grace", "3s", "--", "sh", "-c", STUBBORN)
    )
    waiting = shared_box.submit("bob", "-g", "4", "true")
    for folder in ("one", "two"):
        path = shared_box.inside(f"/home/alice/{folder}/ready")
        until(path.exists, f"the job in {folder}")
    seconds = shared_box.power_off()
    report.append(
        f"a shutdown with two running jobs (2 s of saving, a grace of 3 s): {seconds:.1f} s"
    )
    assert (shared_box.root / "home/alice/one/saved").read_text() == "all of it"

    shared_box.boot()
    shared_box.until_active()
    for id in (saving, stubborn):
        ended = shared_box.job(id)
        assert ended["outcome"] == "lost"
        assert "shut" in ended["reason"], ended["reason"]
    assert shared_box.until_state(waiting, "ended")["outcome"] == "succeeded"


def test_a_retried_job_that_a_shutdown_ended_runs_again_after_the_boot(shared_box: Box) -> None:
    shared_box.run("mkdir", "-p", "three", user="alice")
    folder = ("-C", "/home/alice/three")
    again = "[ -e ready ] && exit 0; touch ready; exec sleep 1000"
    id = shared_box.submit("alice", *folder, "--retries", "1", "--shell", again)
    until(shared_box.inside("/home/alice/three/ready").exists, "the job")
    shared_box.power_off()
    shared_box.boot()
    shared_box.until_active()
    ended = shared_box.until_state(id, "ended")
    assert (ended["outcome"], ended["attempt"]) == ("succeeded", 2)


def test_a_job_that_outlives_its_service_at_a_power_cut_is_lost_without_a_shutdown(
    shared_box: Box,
) -> None:
    job = shared_box.held("alice")
    shared_box.pull_the_plug()
    shared_box.boot()
    shared_box.until_active()
    ended = shared_box.job(job.id)
    assert ended["outcome"] == "lost"
    assert "shutdown" not in ended["reason"]
