"""Jobs with --mem and --cpus: each in a scope of its own under gpuq.slice, outside the service."""

import statistics

import pytest

from tests.conftest import until
from tests.systemd.box import Box, Held

LIMITS = ("--mem", "1G", "--cpus", "1")
STARTS = 8
OVER = "mount --bind /run/controllers"
CONTROLLERS = "/sys/fs/cgroup/cgroup.controllers"


@pytest.fixture(scope="module")
def box_with_scopes(box: Box, report: list[str]) -> Box:
    """Where cgroup 2 lacks the controllers a file says that it has them: so gpuq asks the real
    systemd for real scopes, and only what the kernel would enforce in them is not to be seen."""
    missing = {"memory", "cpu"} - box.controllers()
    if missing:
        report.append(
            f"NOT SEEN, since cgroup 2 has no controller {' or '.join(sorted(missing))} here: what "
            "memory.max and cpu.max enforce in a job's scope. Seen: the scopes, with these "
            "controllers written into an injected cgroup.controllers"
        )
        box.run("sh", "-c", f"echo cpu memory pids >/run/controllers; {OVER} {CONTROLLERS}")
    box.install()
    return box


def scopes(box: Box) -> list[str]:
    words = ("systemctl", "list-units", "--type=scope", "--plain", "--no-legend", "gpuq-*")
    return [line.split()[0] for line in box.says(*words).splitlines()]


def scope_of(box: Box, job: Held) -> str:
    (found,) = scopes(box)
    assert found.startswith(f"gpuq-{job.id}-1-")
    return found


def test_a_job_with_limits_has_a_scope_under_the_slice(box_with_scopes: Box) -> None:
    job = box_with_scopes.held("alice", *LIMITS)
    scope = scope_of(box_with_scopes, job)
    asked = ("Slice", "MemoryMax", "CPUQuotaPerSecUSec", "ControlGroup")
    seen = box_with_scopes.unit(scope, *asked)
    assert seen["Slice"] == "gpuq.slice"
    assert seen["MemoryMax"] == str(1 << 30)
    assert seen["CPUQuotaPerSecUSec"] == "1s"
    lines = box_with_scopes.inside(f"/proc/{job.pid}/cgroup").read_text().splitlines()
    assert any(f"{seen['ControlGroup']}/" in line for line in lines)
    job.assert_ends_with(0)
    until(lambda: not scopes(box_with_scopes), "the end of the scope")


def test_restart_and_crash_leave_a_job_in_its_scope(box_with_scopes: Box) -> None:
    job = box_with_scopes.held("alice", *LIMITS)
    scope = scope_of(box_with_scopes, job)
    for blow in ("systemctl restart gpuqd", "kill -KILL $(systemctl show -P MainPID gpuqd)"):
        before = box_with_scopes.main_pid()
        box_with_scopes.run("sh", "-c", blow)
        box_with_scopes.until_active(other_than=before)
        job.assert_untouched()
        assert scopes(box_with_scopes) == [scope]
    job.assert_ends_with(6)


def test_a_job_that_is_killed_takes_its_scope_along(box_with_scopes: Box) -> None:
    job = box_with_scopes.held("bob", *LIMITS)
    box_with_scopes.gpuq("kill", "--now", str(job.id), user="bob")
    assert box_with_scopes.until_state(job.id, "ended")["outcome"] == "cancelled"
    until(lambda: not scopes(box_with_scopes), "the scope to be gone")


def test_what_a_scope_adds_to_a_start_is_told(box_with_scopes: Box, report: list[str]) -> None:
    """A measurement to be read, and no promise."""
    start_ms(box_with_scopes, LIMITS)  # the first asks what there is
    taken: dict[tuple[str, ...], list[float]] = {(): [], LIMITS: []}
    for options in [(), LIMITS] * STARTS:  # in turn, so that noise meets both
        taken[options].append(start_ms(box_with_scopes, options))
    without, with_scope = (statistics.median(found) for found in taken.values())
    report.append(
        f"from submit to a job's process: {without:.1f} ms, in a scope {with_scope:.1f} ms; the "
        f"scope adds {with_scope - without:.1f} ms (medians of {STARTS})"
    )


def start_ms(box: Box, options: tuple[str, ...]) -> float:
    id = box.submit("alice", "-g", "0", *options, "true")
    seen = box.until_state(id, "ended")
    return 1000 * float(seen["started_at"] - seen["submitted_at"])
