"""What was written for Slurm is understood as far as it means something on one machine."""

import shlex
from dataclasses import replace
from typing import Any

import pytest

from gpuq.core.asked.elements import Elements
from gpuq.core.asked.file_names import Naming, differs_by_element, expand
from gpuq.core.asked.sbatch import NotUnderstood, Translation, slurm_seconds, translate
from gpuq.core.asked.scripts import directives, interpreter_of
from gpuq.core.asked.slurm import SlurmJob, slurm_environment

_KNOWN = """
--gpus --gpu-model --name --cpus --mem --time --array --output --stderr --cwd --dependency --begin
--hold --priority --queue --preemptible --preempt-signal --env
"""
KNOWN = _KNOWN.split()


def translated(*lines: str, queues: tuple[str, ...] = ()) -> Translation:
    words = [(number, shlex.split(line)) for number, line in enumerate(lines, 1)]
    return translate(words, KNOWN, lambda: queues)


def ours(*lines: str, queues: tuple[str, ...] = ()) -> list[str]:
    return [word for _, words in translated(*lines, queues=queues).words for word in words]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-J vit", ["--name", "vit"]),
        ("-Jvit", ["--name", "vit"]),
        ("--job-name=vit", ["--name", "vit"]),
        ("--job-name vit", ["--name", "vit"]),
        ("-t 90", ["--time", "5400s"]),
        ("--time=4:00:00", ["--time", "14400s"]),
        ("--time=30:00", ["--time", "1800s"]),
        ("--time=1-12", ["--time", "129600s"]),
        ("--time=UNLIMITED", []),
        ("--gres=gpu:2", ["--gpus", "2"]),
        ("--gres=gpu:a100:2", ["--gpus", "2", "--gpu-model", "a100"]),
        ("--gres=gpu", ["--gpus", "1"]),
        ("--gres=gpu:h100", ["--gpus", "1", "--gpu-model", "h100"]),
        ("--gres=craynetwork:1,gpu:3", ["--gpus", "3"]),
        ("--gres=none", ["--gpus", "0"]),
        ("-G 4", ["--gpus", "4"]),
        ("--gpus-per-node=v100:8", ["--gpus", "8", "--gpu-model", "v100"]),
        ("--gpus-per-task=1", ["--gpus", "1"]),
        ("-c 8", ["--cpus", "8"]),
        ("--mem=16G", ["--mem", "16G"]),
        ("--mem=4096", ["--mem", "4096M"]),
        ("--mem=0", []),
        ("-a 0-9%2", ["--array", "0-9%2"]),
        ("-o slurm-%A_%a.out", ["--output", "slurm-%A_%a.out"]),
        ("-e err-%j", ["--stderr", "err-%j"]),
        ("-D /data", ["--cwd", "/data"]),
        ("-d afterok:7:8", ["--dependency", "afterok:7:8"]),
        ("-d singleton,afterany:3", ["--dependency", "afterany:3"]),
        ("--begin=16:00", ["--begin", "16:00"]),
        ("--begin=now+1hour", ["--begin", "+1h"]),
        ("--begin=now+90", ["--begin", "+90s"]),
        ("--begin=now+2weeks", ["--begin", "+14d"]),
        ("--hold", ["--hold"]),
        ("-H", ["--hold"]),
        ("--nice=50", ["--priority", "-50"]),
        ("--nice", ["--priority", "-100"]),
        ("--export=ALL,A=1,B=x", ["--env", "A=1", "--env", "B=x"]),
        ("--requeue", ["--preemptible"]),
        ("--nodes=1 -n1 --ntasks-per-node=1 --no-requeue --export=ALL --open-mode=append", []),
    ],
)
def test_what_makes_sense_on_one_machine_is_said_in_our_words(line: str, words: list[str]) -> None:
    said = translated(line)
    assert [word for _, part in said.words for word in part] == words
    assert (said.ignored, said.unmet) == ([], [])


def test_memory_for_each_cpu_or_gpu_is_all_of_it() -> None:
    assert ours("--mem-per-cpu=2G", "-c 8") == ["--mem", "16G", "--cpus", "8"]
    assert ours("--gres=gpu:4", "--mem-per-gpu=10G")[-2:] == ["--mem", "40G"]
    assert ours("--gres=gpu:4", "--cpus-per-gpu=6")[-2:] == ["--cpus", "24"]


def test_the_signal_before_preemption_is_sent_where_it_gives_way() -> None:
    assert ours("--requeue", "--signal=B:USR1@60")[-2:] == ["--preempt-signal", "USR1"]
    said = translated("--signal=USR1@60")
    assert said.words == []
    assert said.unmet[0].startswith("line 1: --signal=USR1@60 is not sent")


def test_a_partition_is_the_queue_of_its_name_where_there_is_one() -> None:
    assert ours("-p gpu,long", queues=("short", "long")) == ["--queue", "long"]
    assert translated("-p gpu", queues=("short",)).ignored == ["--partition"]


def test_the_rest_is_named_once() -> None:
    said = translated("--account=x --mail-type=END --mail-user a@b", "-A y", "--qos=high -C a100")
    assert said.ignored == ["--account", "--mail-type", "--mail-user", "--qos", "--constraint"]
    assert said.words == []


@pytest.mark.parametrize("line", ["--nodes=2", "-N 2-4", "--ntasks=8", "--ntasks-per-node=4"])
def test_what_one_machine_cannot_do_is_said(line: str) -> None:
    said = translated("-J x", line)
    assert len(said.unmet) == 1
    assert said.unmet[0].startswith("line 2: --n")
    assert "cannot be had" in said.unmet[0]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--time=soon", "--time=soon: it is no time"),
        ("--mem=lots", "--mem=lots: it is no size"),
        ("-c two", "--cpus-per-task=two: it is no whole number"),
        ("--job-name", "--job-name: it wants a value"),
        ("train.py", "'train.py' is no option of sbatch"),
        ("-Z", "'-Z' is no option of sbatch"),
    ],
)
def test_what_cannot_be_read_names_its_line(line: str, complaint: str) -> None:
    with pytest.raises(NotUnderstood) as refused:
        translated("-J x", line)
    assert refused.value.line == 2
    assert str(refused.value).startswith(complaint)


def test_minutes_and_days() -> None:
    assert [slurm_seconds(text) for text in ("1", "1:30", "0-1", "2-00:00:30")] == [
        60.0,
        90.0,
        3600.0,
        172830.0,
    ]


# ── scripts ──


def test_the_head_of_a_script_ends_with_its_first_command() -> None:
    text = (
        "#!/bin/bash\n#SBATCH -J a\n# SBATCH -J no\n##SBATCH -J no\n\n#GPUQ --gpus 2\n"
        "#SBATCHX\n#SBATCH\t-n1\necho\n#SBATCH -J late\n"
    )
    assert [tuple(one) for one in directives(text)] == [
        (2, "#SBATCH", "-J a"),
        (6, "#GPUQ", "--gpus 2"),
        (8, "#SBATCH", "-n1"),
    ]


def test_the_interpreter_gets_one_word_as_from_the_kernel() -> None:
    assert interpreter_of("#!/bin/sh\n") == ["/bin/sh"]
    assert interpreter_of("#! /usr/bin/env -S python -u \nx") == ["/usr/bin/env", "-S python -u"]
    for text in ("", "echo", "#!", "#!  \nx"):
        with pytest.raises(ValueError, match="names no interpreter"):
            interpreter_of(text)


# ── names of files ──

NAMING = Naming(job=14, array=12, index=7, name="a/b", user="ann", node="box")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("slurm-%j.out", "slurm-14.out"),
        ("%A_%a", "12_7"),
        ("%4a-%06j", "0007-000014"),
        ("%x.%u.%N", "a_b.ann.box"),
        ("100%%", "100%"),
        ("%%j", "%j"),
        ("50% %z %", "50% %z %"),
    ],
)
def test_signs_in_names_of_files(text: str, name: str) -> None:
    assert expand(text, NAMING) == name


def test_it_is_known_whether_elements_get_files_of_their_own() -> None:
    assert differs_by_element("x-%3a")
    assert not differs_by_element("x-%%a-%x-%A")


# ── the environment ──


def slurm_job(**changes: Any) -> SlurmJob:
    usual = SlurmJob(
        job=14,
        array=14,
        elements=None,
        index=None,
        name="vit",
        user="ann",
        uid=7,
        gid=8,
        node="box",
        queue="",
        submit_dir="/home/ann",
        restarts=0,
        gpus=(),
        cpus=None,
        mem_bytes=None,
    )
    return replace(usual, **changes)


def test_a_job_of_slurm_finds_what_it_looks_for() -> None:
    found = slurm_environment(slurm_job(gpus=(1, 3), cpus=8, mem_bytes=2**30, queue="long"))
    assert found["SLURM_JOB_ID"] == found["SLURM_JOBID"] == "14"
    assert found["SLURM_GPUS_ON_NODE"] == "2"
    assert found["SLURM_JOB_GPUS"] == "1,3"
    assert found["SLURM_CPUS_PER_TASK"] == found["SLURM_CPUS_ON_NODE"] == "8"
    assert found["SLURM_MEM_PER_NODE"] == "1024"
    assert found["SLURM_JOB_PARTITION"] == "long"
    assert found["SLURM_JOB_NODELIST"] == found["SLURM_SUBMIT_HOST"] == "box"
    assert (found["SLURM_NTASKS"], found["SLURM_PROCID"], found["SLURM_NNODES"]) == ("1", "0", "1")


def test_what_does_not_apply_is_not_set() -> None:
    found = slurm_environment(slurm_job())
    for name in ("ARRAY_TASK_ID", "GPUS_ON_NODE", "CPUS_PER_TASK", "RESTART_COUNT", "MEM_PER_NODE"):
        assert f"SLURM_{name}" not in found
    assert slurm_environment(slurm_job(restarts=2))["SLURM_RESTART_COUNT"] == "2"


def test_an_element_knows_its_array() -> None:
    elements = Elements(indices=(range(5, 12, 3), range(2, 3)))
    found = slurm_environment(slurm_job(job=16, array=14, elements=elements, index=11))
    told = {name[12:]: value for name, value in found.items() if "_ARRAY_" in name}
    assert told == {
        "JOB_ID": "14",
        "TASK_ID": "11",
        "TASK_COUNT": "4",
        "TASK_MIN": "2",
        "TASK_MAX": "11",
        "TASK_STEP": "3",
    }
