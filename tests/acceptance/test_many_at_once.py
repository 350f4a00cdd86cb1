"""Arrays, grids, tables, lines and scripts, from the command line to what each job finds."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BIN, Daemon, until

CLUSTER = """#!/bin/bash
#SBATCH --job-name=sweep
#SBATCH --partition=gpu --account=lab
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=2
#SBATCH --gres=gpu:1
#SBATCH --time=0:10:00
#SBATCH --array=3-9:3%2
#SBATCH --output=logs/%x-%A_%a.out
#SBATCH --mail-type=END

set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
rates=(0 0 0 0.1 0 0 0.01 0 0 0.001)
echo "task $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT ($SLURM_ARRAY_TASK_MIN to" \
  "$SLURM_ARRAY_TASK_MAX), rate ${rates[$SLURM_ARRAY_TASK_ID]}, $SLURM_GPUS_ON_NODE GPU," \
  "$SLURM_CPUS_PER_TASK CPUs, $SLURM_NTASKS task on $SLURM_NNODES node, called $SLURM_JOB_NAME with $*"
echo "$SLURM_ARRAY_JOB_ID" > "result-$SLURM_ARRAY_TASK_ID"
"""


def view(daemon: Daemon, ref: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(daemon.gpuq("status", "-a", "--json", ref).stdout)[
        "jobs"
    ]
    return sorted(found, key=lambda job: int(job["id"]))


def logs(daemon: Daemon, group: str) -> list[str]:
    return [Path(job["log"]).read_text() for job in view(daemon, group)]


def test_each_element_finds_its_index_and_its_values(daemon: Daemon, tmp_path: Path) -> None:
    """In its words, its name, its environment and the names of its files."""
    ran = daemon.gpuq(
        *("submit", "-w", "-g", "0", "--grid", "lr=0.1,0.01", "--grid", "seed=1-2", "-n", "r-{lr}"),
        *("-o", "out-{seed}-%A_%a", "-e", "WHERE=run/{seed}", "--", "sh", "-c"),
        'echo $GPUQ_ARRAY_INDEX $GPUQ_ARRAY_COUNT $GPUQ_GROUP $GPUQ_PARAM_LR $WHERE "$@"',
        *("name", "{lr}", "{{i}}", "{x}", "${i}"),
        cwd=tmp_path,
    )
    assert (ran.returncode, ran.stdout) == (0, "g1\n"), ran.stderr
    assert (tmp_path / "out-1-1_2").read_text() == "2 4 g1 0.01 run/1 0.01 {i} {x} ${i}\n"
    jobs = view(daemon, "g1")
    assert [job["parameters"] for job in jobs] == [
        {"lr": lr, "seed": seed} for lr in ("0.1", "0.01") for seed in ("1", "2")
    ]
    assert [job["name"] for job in jobs] == ["r-0.1", "r-0.1", "r-0.01", "r-0.01"]
    assert [job["array_index"] for job in jobs] == [0, 1, 2, 3]
    assert jobs[3]["command"][-4:] == ["0.01", "{i}", "{x}", "${i}"]
    assert jobs[3]["log"] == str(tmp_path / "out-2-1_3")
    assert daemon.gpuq("logs", "4").stdout == "3 4 g1 0.01 run/2 0.01 {i} {x} ${i}\n"


def test_one_element_can_be_submitted_again_as_it_was(daemon: Daemon, tmp_path: Path) -> None:
    daemon.gpuq(
        *("submit", "-w", "-g", "0", "-a", "7-8", "--grid", 'text=plain,"a, {i} b"'),
        *("-o", "%a.log", "--", "sh", "-c", 'echo "$GPUQ_ARRAY_INDEX $GPUQ_PARAM_TEXT $*" {{i}}'),
        *("x", "{text}", "{i}"),
        cwd=tmp_path,
    )
    said = (tmp_path / "8.log").read_text()
    assert said == "8 a, {i} b a, {i} b 8 {i}\n"
    shown = daemon.gpuq("show", "2").stdout
    again = next(line for line in shown.splitlines() if line.startswith("submit again"))
    command = f"exec {again.partition(chr(9))[2].replace('gpuq submit', 'gpuq submit -w', 1)}"
    path = f"{BIN}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", command], env=daemon.environment | {"PATH": path}, check=True)
    assert (tmp_path / "8.log").read_text() == said * 2


def test_a_table_gives_each_its_row(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text('lr,note\n0.1,"two words"\n0.2,"$(id) \'q\'"\n')
    words = ("-g", "0", "--params", "runs.csv", "--", "echo", "{lr}", "<{note}>")
    group = daemon.gpuq("submit", "-w", *words, cwd=tmp_path).stdout.strip()
    assert logs(daemon, group) == ["0.1 <two words>\n", "0.2 <$(id) 'q'>\n"]


def test_a_shell_gets_values_as_data(daemon: Daemon, tmp_path: Path) -> None:
    """Whatever stands in them is no text of the shell's."""
    words = ("-g", "0", "--grid", 'x="a; echo stray","$(echo stray)"', "--shell")
    group = daemon.gpuq("submit", "-w", *words, 'echo "<$GPUQ_PARAM_X>"').stdout.strip()
    assert logs(daemon, group) == ["<a; echo stray>\n", "<$(echo stray)>\n"]
    refused = daemon.gpuq("submit", *words, "echo {x}")
    assert refused.returncode == 2
    assert '"$GPUQ_PARAM_X"' in refused.stderr


def test_no_more_run_at_once_than_asked_for(daemon: Daemon, tmp_path: Path) -> None:
    """Each looks how many are there beside it, and leaves only once it has seen all who may come."""
    script = (
        'd="$0"; touch "$d/$1"; n=$(ls "$d" | wc -l); [ "$n" -le 2 ] || exit 9; '
        'while [ ! -e "$d.go" ]; do sleep 0.01; done; rm "$d/$1"'
    )
    (tmp_path / "here").mkdir()
    here = str(tmp_path / "here")
    group = daemon.gpuq(
        "submit", "-a", "0-5%2", "--", "sh", "-c", script, here, "{i}"
    ).stdout.strip()
    until(lambda: len(os.listdir(here)) == 2, "two of them")
    Path(f"{here}.go").touch()
    assert daemon.gpuq("wait", group).returncode == 0


def test_a_million_elements_are_queued_at_once_and_cancelled_at_once(daemon: Daemon) -> None:
    with daemon.client() as client:
        holder = client.submit(["sleep", "1000"], gpus=4)
        ids = client.submit_many([{"argv": ["true", "{i}"], "array": "0-999999", "gpus": 4}])
        assert len(ids) == 1_000_000
        assert client.job(ids[777_777])["command"] == ["true", "777777"]
        client.kill([f"g{ids.start}"])
        client.kill([holder], grace_s=0)
        assert client.wait([ids[-1]])[0]["outcome"] == "cancelled"


def test_python_submits_many_too(daemon: Daemon) -> None:
    with daemon.client() as client:
        first = client.submit(["echo", "{lr}"], gpus=0, grid={"lr": [0.1, 0.01]}, array="%1")
        client.wait([f"g{first}"])
        assert logs(daemon, f"g{first}") == ["0.1\n", "0.01\n"]
        first = client.submit(["echo", "{a}", "{b}"], gpus=0, params=[{"a": 1, "b": "x y"}])
        assert Path(client.wait([first])[0]["log"]).read_text() == "1 x y\n"
        first = client.submit(["called.py", "z"], gpus=0, script="#!/bin/sh\necho $1 $0\n")
        ended = client.wait([first])[0]
        assert Path(ended["log"]).read_text() == f"z {Path(ended['log']).parent}/script\n"


# ── lines ──


def test_lines_become_jobs_of_one_group(daemon: Daemon, tmp_path: Path) -> None:
    lines = ["# first", "echo 'a  b'", "", json.dumps({"shell": "echo $GPUQ_GROUP | cat"})]
    ran = daemon.gpuq("submit", "-w", "-g", "0", "--from", "-", input="\n".join(lines))
    assert (ran.returncode, ran.stdout) == (0, "g1\n"), ran.stderr
    assert logs(daemon, "g1") == ["a  b\n", "g1\n"]


def test_a_generator_is_a_pipe(daemon: Daemon) -> None:
    """What it has brought runs while it goes on."""
    with subprocess.Popen(
        [BIN / "gpuq", "submit", "-g", "0", "--from", "-"],
        env=daemon.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as ran:
        assert ran.stdin is not None
        assert ran.stdout is not None
        os.write(ran.stdin.fileno(), b"true 1\n")
        assert ran.stdout.readline() == b"g1\n"
        until(lambda: [job["outcome"] for job in view(daemon, "1")] == ["succeeded"], "the first")
        os.write(ran.stdin.fileno(), b"true 2\n")
        out, _ = ran.communicate(timeout=30)
    assert out == b""
    assert daemon.gpuq("wait", "g1").returncode == 0
    assert [job["group"] for job in view(daemon, "g1")] == ["g1", "g1"]


def test_nobody_adds_to_a_group_that_is_not_there(daemon: Daemon) -> None:
    with daemon.client() as client, pytest.raises(Exception, match="no group g77 to add to"):
        client.submit_many([{"argv": ["true"]}], group="g77")


# ── scripts ──


def test_a_clusters_script_runs_unchanged(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "train.sh").write_text(CLUSTER)
    ran = daemon.gpuq("submit", "--wait", "train.sh", "a b", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "g1\n"), ran.stderr
    assert (tmp_path / "logs" / "sweep-1_6.out").read_text() == (
        "task 6 of 3 (3 to 9), rate 0.01, 1 GPU, 2 CPUs, 1 task on 1 node, called sweep with a b\n"
    )
    results = {path.name: path.read_text() for path in tmp_path.glob("result-*")}
    assert results == {f"result-{index}": "1\n" for index in (3, 6, 9)}
    assert ran.stderr.count("--mail-type") == 1


def test_the_script_runs_as_it_was_at_submit(daemon: Daemon, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text('#!/bin/sh\n#GPUQ -g 4\necho "as it was $*" $(basename "$0")\n')
    with daemon.client() as client:
        holder = client.submit(["sleep", "1000"])
        job = daemon.gpuq("submit", "job.sh", "a", "b c", cwd=tmp_path).stdout.strip()
        script.unlink()
        client.kill([holder], grace_s=0)
        ended = client.wait([job])[0]
    assert Path(ended["log"]).read_text() == "as it was a b c script\n"
    assert (ended["command"], ended["script"]) == (["job.sh", "a", "b c"], True)
    kept = Path(ended["log"]).with_name("script")
    assert kept.stat().st_mode & 0o777 == 0o700
    assert "as it was" in kept.read_text()
    assert daemon.gpuq("prune", "-y", job).returncode == 0
    assert not kept.parent.parent.exists(), "it goes with the job's logs"


def test_a_script_with_an_interpreter_that_is_not_there_says_so(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "job.sh").write_text("#!/no/such/shell\n")
    ran = daemon.gpuq("run", "-g", "0", "./job.sh", cwd=tmp_path)
    assert ran.returncode == 127
    assert "'/no/such/shell' is no program that can be found" in ran.stderr
    assert "executing /no/such/shell: no such file" in ran.stderr


def test_a_script_takes_the_place_of_whatever_lies_there(daemon: Daemon, tmp_path: Path) -> None:
    """A pipe that an earlier attempt left for it would hold up its runner for ever."""
    (tmp_path / "job.sh").write_text(
        "#!/bin/sh\nnext=$(dirname $(dirname $0))/2\n"
        "[ $GPUQ_ATTEMPT = 2 ] || { mkdir $next; mkfifo $next/script; exit 1; }\n"
    )
    words = ("-w", "-g", "0", "--retries", "1", "--backoff", "0s", "./job.sh")
    assert daemon.gpuq("submit", *words, cwd=tmp_path).returncode == 0
