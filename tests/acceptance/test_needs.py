"""Jobs that wait for jobs, on a real daemon."""

from pathlib import Path

from gpuq.daemon.check import command as check
from tests.conftest import Daemon, until


def states(daemon: Daemon, refs: str) -> list[str]:
    with daemon.client() as client:
        return [job["outcome"] or job["state"] for job in client.jobs(refs)]


def is_well(daemon: Daemon) -> bool:
    found = check.look_once(str(daemon.state / "gpuq.db"), None, whole=True)
    return not found.breaches


def test_elements_wait_for_their_own_and_one_that_is_requeued_revives_its_own(
    daemon: Daemon, tmp_path: Path
) -> None:
    """One of three fails until a file is there."""
    here = tmp_path / "here"
    script = f'[ "$GPUQ_ARRAY_INDEX" != 1 ] || [ -e {here} ]'
    first = daemon.gpuq("submit", "-g0", "-a", "0-2", "--shell", script)
    assert first.stdout.strip() == "g1", first.stderr
    then = daemon.gpuq("submit", "-g0", "-a", "0-2", "--after", "g1:ok:each", "true")
    assert then.stdout.strip() == "g4", then.stderr
    last = daemon.gpuq("submit", "-g0", "--after", "@", "true")
    assert last.stdout.strip() == "7", last.stderr
    assert daemon.gpuq("wait", "1-7").returncode == 125
    assert states(daemon, "1-7") == [
        *("succeeded", "failed", "succeeded"),
        *("succeeded", "skipped", "succeeded"),
        "skipped",
    ]
    assert is_well(daemon)

    here.touch()
    assert daemon.gpuq("requeue", "2").returncode == 0
    until(lambda: states(daemon, "1-7") == ["succeeded"] * 7, "all of them")
    with daemon.client() as client:
        assert [job["attempt"] for job in client.jobs("1-7")] == [1, 2, 1, 1, 1, 1, 1]
    assert is_well(daemon)


def test_who_kills_a_job_hears_who_waits_for_it(daemon: Daemon) -> None:
    daemon.gpuq("submit", "-g0", "sleep", "300")
    daemon.gpuq("submit", "-g0", "--after", "1", "true")
    daemon.gpuq("submit", "-g0", "--after", "1:any", "true")
    (waiting,) = daemon.gpuq("status", "2").stdout.splitlines()
    assert "\tafter 1 (ok)\t" in waiting
    assert "needed by\t2-3" in daemon.gpuq("show", "1").stdout
    killed = daemon.gpuq("kill", "1", "--wait")
    assert killed.stderr == "gpuq: 2 waits for 1 and will never start\n"
    until(lambda: states(daemon, "1-3") == ["cancelled", "skipped", "succeeded"])


def test_a_need_is_checked_before_anything_is_queued(daemon: Daemon) -> None:
    refused = daemon.gpuq("submit", "-g0", "--after", "12", "true")
    assert refused.returncode == 3
    assert "no job 12" in refused.stderr
    with daemon.client() as client:
        assert client.jobs(all=True) == []
