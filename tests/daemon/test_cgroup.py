"""What a job's control group is promised to do. The groups are real where cgroup 2 can be had, and
so are the processes in them; a tree of plain files stands in only for what this kernel lacks."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuq.daemon.linux import processes
from gpuq.daemon.linux.cgroup import (
    Leaf,
    controllers,
    directories,
    find_root,
    own_group,
    remove_root,
    sweep,
)
from tests.conftest import until

NOBODY = 65534
COUNT = 'while :; do echo >> "$1"; sleep 0.005; done'


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    """A real root of its own, and nobody and nothing left of it."""
    found = find_root(str(tmp_path))
    if found is None:
        pytest.skip("NOT TESTED: this process may make no groups in a cgroup 2 here")
    yield found
    whole = Leaf(found)
    whole.freeze(False)
    whole.kill()
    until(whole.remove, "the end of the groups")


@pytest.fixture
def leaf(root: str) -> Leaf:
    return made(root, "7.1")


def made(root: str, name: str) -> Leaf:
    leaf = Leaf.make(root, name)
    assert leaf is not None
    return leaf


def started(leaf: Leaf, script: str, *words: object) -> subprocess.Popen[bytes]:
    """A shell that is born in a leaf."""
    argv = ["sh", "-c", script, "sh", *map(str, words)]
    return subprocess.Popen(argv, preexec_fn=leaf.enter)  # noqa: PLW1509 - no threads here


def in_child(deed: Callable[[], object], group: str | None = None, uid: int | None = None) -> str:
    """What a deed gives in a process of its own, in a group and as a user of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if group is not None:
                assert Leaf(group).enter()
            if uid is not None:
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            os.write(writing, str(deed()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as told:
        answer = told.read()
    os.waitpid(pid, 0)
    return answer


# ─── kill ────────────────────────────────────────────────────────────────────────────────────────


def test_who_has_left_session_and_parents_is_killed_too(leaf: Leaf, tmp_path: Path) -> None:
    flee = 'setsid sh -c \'echo $$ > "$1"; exec sleep 300\' sh "$1" & exit 0'
    pid_file = tmp_path / "pid"
    assert started(leaf, f"({flee}) &", pid_file).wait() == 0
    pid = int(until(lambda: pid_file.exists() and pid_file.read_text(), "the orphan"))
    assert leaf.members() == [pid]
    assert leaf.is_populated()
    assert leaf.kill()
    until(lambda: not leaf.is_populated(), "the end of all in the leaf")
    assert processes.identity(pid) is None


def test_who_forks_all_the_time_gets_away_as_little(leaf: Leaf) -> None:
    fork = "hop() { sleep 0.01; hop & }; for n in 1 2 3 4; do hop & done; exit 0"
    assert started(leaf, fork).wait() == 0
    until(lambda: len(leaf.members()) > 3, "the forks")
    assert leaf.kill()
    until(lambda: not leaf.is_populated(), "the end of all in the leaf")
    assert leaf.members() == []


def test_a_kill_ends_nobody_outside_the_leaf(leaf: Leaf, root: str) -> None:
    ours, theirs = started(leaf, "exec sleep 300"), started(made(root, "8.1"), "exec sleep 300")
    assert leaf.kill()
    assert ours.wait() == -9
    assert theirs.poll() is None
    theirs.kill()
    theirs.wait()


def test_a_runner_that_came_back_outlives_the_kill_of_its_job(leaf: Leaf) -> None:
    runner = """if True:
        import os, sys
        from gpuq.daemon.linux.cgroup import Leaf, own_group
        own, leaf = own_group(), Leaf(sys.argv[1])
        assert leaf.enter() and own_group() == leaf.path
        job = os.posix_spawn("/bin/sleep", ["sleep", "300"], {})
        assert leaf.leave(own) and own_group() == own
        assert leaf.members() == [job]
        assert leaf.kill()
        assert os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]) == -9
        assert not leaf.is_populated() and leaf.remove()
    """
    subprocess.run([sys.executable, "-c", runner, leaf.path], check=True, timeout=30)


# ─── freeze ──────────────────────────────────────────────────────────────────────────────────────


def test_a_frozen_job_stands_still_and_goes_on_when_thawed(leaf: Leaf, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    job = started(leaf, COUNT, counter)
    until(counter.exists, "the first count")
    assert not leaf.is_frozen()
    assert leaf.freeze(True)
    until(leaf.is_frozen, "the frost")
    size = counter.stat().st_size
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(0.2)
    assert counter.stat().st_size == size
    assert leaf.freeze(False)
    until(lambda: counter.stat().st_size > size, "the next count")
    assert not leaf.is_frozen()
    leaf.kill()
    job.wait()


def test_a_frozen_job_can_be_killed(leaf: Leaf) -> None:
    job = started(leaf, "while :; do sleep 0.01; done")
    assert leaf.freeze(True)
    until(leaf.is_frozen, "the frost")
    assert leaf.kill()
    assert job.wait(20) == -9
    until(lambda: not leaf.is_populated(), "the end of all in the leaf")


def test_a_leaf_left_frozen_does_not_freeze_who_enters_the_next_of_its_name(root: str) -> None:
    assert made(root, "7.1").freeze(True)
    again = made(root, "7.1")
    assert not again.is_frozen()
    assert started(again, "exit 3").wait(20) == 3


# ─── members ─────────────────────────────────────────────────────────────────────────────────────


def test_groups_that_a_job_makes_below_its_own_belong_to_it(leaf: Leaf) -> None:
    below = made(made(leaf.path, "workers").path, "first")
    jobs = [started(group, "exec sleep 300") for group in (leaf, below)]
    assert sorted(leaf.members()) == sorted(job.pid for job in jobs)
    assert leaf.kill()
    assert [job.wait(20) for job in jobs] == [-9, -9]
    until(leaf.remove, "the leaf to go with all below")
    assert not os.path.exists(leaf.path)


def test_the_dead_are_no_members(leaf: Leaf) -> None:
    zombie = started(leaf, "exit 0")
    until(lambda: processes.identity(zombie.pid) is None, "its end")
    until(lambda: not leaf.is_populated(), "the leaf to be empty")
    assert leaf.members() == []
    assert leaf.remove()
    zombie.wait()


# ─── making and removing ─────────────────────────────────────────────────────────────────────────


def test_a_leaf_with_life_in_it_is_not_removed_nor_anything_below(leaf: Leaf) -> None:
    empty = made(leaf.path, "empty")
    job = started(leaf, "exec sleep 300")
    assert not leaf.remove()
    assert os.path.isdir(empty.path)
    job.kill()
    job.wait()
    until(leaf.remove, "the leaf to go")
    assert leaf.remove()  # gone already is as well


def test_nobody_is_put_into_a_leaf_where_others_live(leaf: Leaf, root: str) -> None:
    job = started(leaf, "exec sleep 300")
    assert Leaf.make(root, "7.1") is None
    job.kill()
    job.wait()


def test_a_sweep_removes_what_nobody_uses(root: str) -> None:
    names = ("alive", "wanted", "empty", "frozen")
    alive, wanted, empty, frozen = (made(root, name) for name in names)
    made(empty.path, "below")
    frozen.freeze(True)
    job = started(alive, "exec sleep 300")
    sweep(root, {"wanted"})
    assert {Path(leaf.path) for leaf in (alive, wanted)} == {
        path for path in Path(root).iterdir() if path.is_dir()
    }
    job.kill()
    job.wait()
    sweep(f"{root}/gone", set())


def test_a_root_goes_with_its_daemon_unless_jobs_live_on(leaf: Leaf, root: str) -> None:
    assert not remove_root(root)
    assert leaf.remove()
    assert remove_root(root)
    assert not remove_root(root)


# ─── the root ────────────────────────────────────────────────────────────────────────────────────


def test_each_state_directory_has_one_root_below_our_own_group(root: str, tmp_path: Path) -> None:
    assert os.path.dirname(root) == own_group()
    assert find_root(str(tmp_path)) == root
    other = find_root(str(tmp_path / "other"))
    assert other is not None
    assert remove_root(other)
    assert other != root


def test_groups_are_not_used_where_nobody_wants_them(tmp_path: Path) -> None:
    assert find_root(str(tmp_path), "none") is None


def test_a_root_that_is_named_is_made_and_used(root: str, tmp_path: Path) -> None:
    assert find_root(str(tmp_path), f"{root}/named") == f"{root}/named"
    assert find_root(str(tmp_path), f"{root}/named") == f"{root}/named"
    assert made(f"{root}/named", "7.1").path == f"{root}/named/7.1"


def test_a_job_can_look_into_its_group_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert made(str(tmp_path), "7.1").path == f"{tmp_path}/7.1"
    finally:
        os.umask(before)
    assert (tmp_path / "7.1").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("place", ["/proc/gpuq", "/dev/null/gpuq", "{tmp}/plain"])
def test_where_nobody_can_be_moved_there_is_no_root(place: str, tmp_path: Path) -> None:
    assert find_root(str(tmp_path), place.format(tmp=tmp_path)) is None


def test_a_daemon_started_again_by_its_own_job_does_not_nest(root: str, tmp_path: Path) -> None:
    leaf = made(root, "7.1")
    assert in_child(lambda: find_root(str(tmp_path)), leaf.path) == root
    deeper = made(leaf.path, "deeper")
    assert in_child(lambda: find_root(str(tmp_path)), deeper.path) == root


def test_a_daemon_that_a_job_starts_for_itself_dies_with_the_job(root: str, tmp_path: Path) -> None:
    leaf, other = made(root, "7.1"), str(tmp_path / "other")
    inner = in_child(lambda: find_root(other), leaf.path)
    assert os.path.dirname(inner) == leaf.path
    job = started(made(inner, "1.1"), "exec sleep 300")
    assert leaf.members() == [job.pid]
    assert leaf.kill()
    assert job.wait(20) == -9


def test_a_user_without_rights_has_no_root(root: str, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("NOT TESTED: only root can become another user")
    assert in_child(lambda: find_root(str(tmp_path / "x")), root, NOBODY) == "None"
    # A group of the user's own is not enough: he has to come back to the one he is in.
    own = made(root, "own")
    os.chown(own.path, NOBODY, NOBODY)
    assert in_child(lambda: find_root(str(tmp_path / "x")), own.path, NOBODY) == "None"


def test_a_user_to_whom_a_group_was_delegated_has_all_of_it(root: str, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("NOT TESTED: only root can become another user")
    own = made(root, "user.service")
    for name in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
        os.chown(f"{own.path}/{name}", NOBODY, NOBODY)

    def deed() -> object:
        inner = find_root(str(tmp_path / "x"))
        leaf = made(inner or "", "7.1")
        moved = leaf.enter() and own_group() == leaf.path and leaf.leave(own.path)
        return moved and leaf.freeze(False) and leaf.kill() and leaf.remove()

    assert in_child(deed, own.path, NOBODY) == "True"


def test_below_a_threaded_group_there_is_no_root(root: str, tmp_path: Path) -> None:
    own = made(root, "own")
    Path(made(own.path, "threads").path, "cgroup.type").write_text("threaded")
    assert in_child(lambda: find_root(str(tmp_path / "x")), own.path) == "None"


MODERN = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"""
OLD = HYBRID.rsplit("\n", 1)[0]
BOUND = "50 40 0:26 /docker/abc /sys/fs/cgroup ro master:3 - cgroup2 cgroup rw"
OUTSIDE = "50 40 0:26 /../.. /sys/fs/cgroup ro - cgroup2 cgroup rw"
SPACE = "50 40 0:26 / /mnt/a\\040b rw - cgroup2 cgroup rw"


@pytest.mark.parametrize(
    ("mountinfo", "membership", "expected"),
    [
        (MODERN, "0::/user.slice/a.scope\n", ["/sys/fs/cgroup/user.slice/a.scope"]),
        (MODERN, "0::/\n", ["/sys/fs/cgroup"]),
        (HYBRID, "4:memory:/x\n1:name=systemd:/y\n0::/z\n", ["/sys/fs/cgroup/unified/z"]),
        (OLD, "4:memory:/x\n1:name=systemd:/y\n", []),
        (MODERN, "4:memory:/x\n1:name=systemd:/y\n", []),
        (OLD, "0::/z\n", []),
        (BOUND, "0::/docker/abc/job\n", ["/sys/fs/cgroup/job"]),
        (BOUND, "0::/docker/abc\n", ["/sys/fs/cgroup"]),
        (BOUND, "0::/docker/abcdef\n", []),
        (OUTSIDE, "0::/\n", []),
        (MODERN, "0::/../other\n", []),
        (SPACE, "0::/x:y\n", ["/mnt/a b/x:y"]),
        ("", "", []),
    ],
)
def test_the_own_group_is_found_in_every_layout(
    mountinfo: str, membership: str, expected: list[str]
) -> None:
    assert directories(mountinfo, membership) == expected


# ─── an injected tree: what this kernel may lack ─────────────────────────────────────────────────


def test_a_memory_controller_tells_of_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text(
        "low 0\noom 2\noom_kill_more 9\noom_kill 12\noom_group_kill 1\n"
    )
    (tmp_path / "memory.peak").write_text("1048576\n")
    (tmp_path / "memory.max").write_text("8388608\n")
    leaf = Leaf(str(tmp_path))
    assert (leaf.oom_kills(), leaf.bound_hits(), leaf.peak_bytes()) == (12, 2, 1048576)
    assert leaf.memory_limit_bytes() == 8388608


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("400000 100000\n", 4.0),
        ("50000 100000\n", 0.5),
        ("max 100000\n", None),
        ("100000 0\n", None),
        ("100000\n", None),
        ("", None),
    ],
)
def test_a_cpu_controller_tells_how_many_it_allows(
    tmp_path: Path, text: str, cpus: float | None
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert Leaf(str(tmp_path)).cpu_limit() == cpus


def test_it_is_seen_what_can_be_bounded_below_a_group(tmp_path: Path) -> None:
    assert controllers(str(tmp_path)) == set()
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu memory\n")
    assert controllers(str(tmp_path)) == {"cpuset", "cpu", "memory"}


def test_a_group_is_made_to_die_as_one_where_the_kernel_can(tmp_path: Path) -> None:
    assert not Leaf(str(tmp_path)).die_as_one()
    (tmp_path / "memory.oom.group").write_text("0\n")
    assert Leaf(str(tmp_path)).die_as_one()
    assert (tmp_path / "memory.oom.group").read_text().startswith("1")


@pytest.mark.parametrize("text", ["", "max\n", "-1\n", "oom_kill\n", "oom_kill x\n", "\xff\0 1"])
def test_what_cannot_be_read_is_none_and_never_a_number(tmp_path: Path, text: str) -> None:
    for name in ("memory.events", "memory.peak", "memory.max", "cpu.max", "cgroup.events"):
        (tmp_path / name).write_text(text)
    leaf = Leaf(str(tmp_path))
    assert (leaf.oom_kills(), leaf.bound_hits(), leaf.peak_bytes()) == (None, None, None)
    assert (leaf.memory_limit_bytes(), leaf.cpu_limit()) == (None, None)
    assert not leaf.is_frozen()
    assert not leaf.is_populated()


def test_a_leaf_without_a_memory_controller_knows_nothing_of_memory(leaf: Leaf) -> None:
    if os.path.exists(f"{leaf.path}/memory.peak"):
        pytest.skip("NOT TESTED: memory is counted in every group here")
    assert (leaf.oom_kills(), leaf.peak_bytes()) == (None, None)


def test_an_old_kernel_without_kill_and_freeze_says_no(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    leaf = made(str(tmp_path), "7.1")
    assert not leaf.kill()
    assert not leaf.freeze(True)
    assert not leaf.enter()
    assert not leaf.leave(leaf.path)
    assert os.listdir(leaf.path) == []  # asking has made no files


def test_members_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "cgroup.procs").write_text("12\n0\nx\n")
    (tmp_path / "below" / "cgroup.procs").write_text("13\n")
    assert Leaf(str(tmp_path)).members() == [12, 13]


def test_what_is_no_group_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    assert not Leaf(str(tmp_path)).remove()
    assert not Leaf(str(tmp_path / "file")).remove()
    assert (tmp_path / "file").read_text() == "precious"


def test_a_group_that_is_gone_answers_all_the_same(root: str) -> None:
    leaf = made(root, "7.1")
    shutil.rmtree(leaf.path, ignore_errors=True)
    assert leaf.remove()
    assert not leaf.enter()
    assert not leaf.kill()
    assert not leaf.freeze(True)
    assert leaf.members() == []
    assert not leaf.is_populated()
