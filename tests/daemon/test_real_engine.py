"""Containers of a real engine, where one is at hand: `GPUQ_TEST_ENGINE` names its client, otherwise
docker and podman are looked for. `GPUQ_TEST_IMAGE` is a local image that has /bin/sh; without it one is
made of a static busybox. Nothing is fetched from anywhere."""

import io
import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from gpuq.core.asked.containers import find_container_run, with_gpus
from gpuq.daemon.linux import processes
from tests.alive import Alive, with_alive
from tests.desk import until

ANSWERS_WITHIN_S = 20.0
ENGINES = ("docker", "podman")


def say(*words: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        words,
        capture_output=True,
        timeout=ANSWERS_WITHIN_S,
        check=False,
        **how,  # type: ignore[call-overload]
    )


@pytest.fixture(scope="module")
def engine() -> str:
    named = os.environ.get("GPUQ_TEST_ENGINE")
    found = [named] if named else [path for name in ENGINES if (path := shutil.which(name))]
    for client in found:
        if say(client, "info").returncode == 0:
            return client
    had = ", ".join(found) or "neither docker nor podman"
    pytest.skip(f"NO REAL CONTAINER WAS STARTED: {had} here, and no engine answers")


@pytest.fixture(scope="module")
def image(engine: str) -> str:
    if named := os.environ.get("GPUQ_TEST_IMAGE"):
        return named
    busybox = shutil.which("busybox")
    if busybox is None or b"statically" not in say("file", "-L", busybox).stdout:
        pytest.skip("NO REAL CONTAINER WAS STARTED: there is no static busybox to make an image of")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(os.path.realpath(busybox), "bin/busybox")
        for name in ("sh", "sleep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    name = f"gpuq-test-{os.getpid()}"
    made = say(engine, "import", "-", name, input=packed.getvalue())
    if made.returncode:
        pytest.skip(f"NO REAL CONTAINER WAS STARTED: no image could be made: {made.stderr!r}")
    return name


def submit(daemon: Alive, engine: str, image: str, script: str) -> int:
    words = (engine, "run", image, "/bin/sh", "-c", script)
    own = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    changes = {name.encode(): value.encode() for name, value in own.items()}
    return daemon.submit("", argv=tuple(map(os.fsencode, words)), changes=changes)


def inside(cid: str) -> list[int]:
    """Its processes, by their control groups."""

    def groups(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            return ""

    return [pid for pid in processes.all_pids() if cid in groups(pid)]


def cid_of(daemon: Alive, job: int) -> Path:
    return daemon.state_dir / "jobs" / str(job) / "1" / "container.cid"


def log_of(daemon: Alive, job: int) -> str:
    path = daemon.state_dir / "jobs" / str(job) / "1" / "log"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("way", ["kill", "kill at once", "runner killed"])
def test_a_real_container_is_its_jobs_and_is_gone_with_it(
    tmp_path: Path, engine: str, image: str, way: str
) -> None:
    script = 'trap "" TERM; echo job $GPUQ_JOB_ID on $GPUQ_DEVICE; while :; do sleep 1; done'

    async def deed(daemon: Alive) -> None:
        job = submit(daemon, engine, image, script)
        await until(lambda: "job" in log_of(daemon, job), f"a word of it: {log_of(daemon, job)}")
        assert log_of(daemon, job) == f"job {job} on cpu\n"
        cid = cid_of(daemon, job).read_text().strip()
        pids = inside(cid)
        assert pids
        assert {daemon.loop.owner_of(pid) for pid in pids} == {job}
        if way == "runner killed":
            os.kill(daemon.attempts(job)[0]["runner_pid"], signal.SIGKILL)
        else:
            daemon.kill(job, grace_s=1.0 if way == "kill" else 0.0)
        row = await daemon.ended(job)
        assert "container" not in row["reason"]
        assert not inside(cid)
        assert say(engine, "container", "inspect", cid).returncode != 0

    with_alive(tmp_path, deed)


@pytest.mark.parametrize("name", ENGINES)
def test_the_real_client_understands_what_is_added(tmp_path: Path, name: str) -> None:
    client = shutil.which(name)
    if client is None:
        pytest.skip(f"NOT TRIED ON THE REAL CLIENT: there is no {name} here")
    nowhere = f"unix://{tmp_path}/none.sock"
    argv = [client, *(("--url", nowhere, "--remote") if name == "podman" else ("-H", nowhere))]
    argv += ["run", "-i", "--rm", "no-such-image"]
    run = find_container_run(argv)
    assert run is not None
    added = with_gpus(
        argv,
        run,
        uuids=("GPU-aa", "GPU-bb"),
        simulated=False,
        variables={"GPUQ_JOB_ID": "7"},
        cid_file=str(tmp_path / "cid"),
    )
    done = say(*added)
    assert b"onnect" in done.stderr, done.stderr  # it had nothing against its words
