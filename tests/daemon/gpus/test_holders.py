"""Who a process is, as /proc tells it."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.daemon.gpus.holders import (
    COMMAND_LENGTH,
    UserNames,
    command_of,
    sees_pids_of_the_driver,
    unit_in,
    unit_of,
)
from tests.daemon.gpus.driver import Proc

ID = "3f2a9c1b7d44e85061a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708"
USER = "/user.slice/user-1000.slice/user@1000.service"
POD = "pod0a1b2c3d-0000-4000-8000-1234567890ab"


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        # version 2 of cgroups, with systemd
        (f"0::/system.slice/docker-{ID}.scope", "docker 3f2a9c1b7d44"),
        (f"0::{USER}/user.slice/docker-{ID}.scope", "docker 3f2a9c1b7d44"),
        (f"0::/machine.slice/libpod-{ID}.scope/container", "podman 3f2a9c1b7d44"),
        (f"0::{USER}/user.slice/libpod-{ID}.scope", "podman 3f2a9c1b7d44"),
        (f"0::/system.slice/nerdctl-{ID}.scope", "containerd 3f2a9c1b7d44"),
        (f"0::/system.slice/cri-containerd-{ID}.scope", "containerd 3f2a9c1b7d44"),
        (
            f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice/"
            f"cri-containerd-{ID}.scope",
            "kubernetes 3f2a9c1b7d44",
        ),
        (f"0::/../docker-{ID}.scope", "docker 3f2a9c1b7d44"),  # seen from another namespace
        (f"0::/podman/{ID}", "container 3f2a9c1b7d44"),
        ("0::/system.slice/ollama.service", "ollama.service"),
        ("0::/system.slice/ollama.service/worker", "ollama.service"),
        ("0::/system.slice/system-vllm.slice/vllm@0.service", "vllm@0.service"),
        (f"0::{USER}/app.slice/jupyter.service", "jupyter.service"),
        ("0::/system.slice/slurmstepd.scope/job_123/step_0/user/task_0", "slurm job 123"),
        ("0::/system.slice/node1_slurmstepd.scope/job_77/step_batch", "slurm job 77"),
        # version 1, a line for each controller
        (f"12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}", "docker 3f2a9c1b7d44"),
        (f"4:memory:/kubepods/burstable/{POD}/{ID}", "kubernetes 3f2a9c1b7d44"),
        (
            "9:freezer:/slurm/uid_1000/job_123/step_0/task_0\n"
            "1:name=systemd:/system.slice/slurmd.service\n"
            "0::/system.slice/slurmd.service",
            "slurm job 123",
        ),
        ("5:devices:/slurm_node1/uid_0/job_9", "slurm job 9"),
        ("2:cpu:/\n1:name=systemd:/system.slice/ollama.service", "ollama.service"),
        # nobody's unit
        ("0::/user.slice/user-1000.slice/session-3.scope", None),
        (f"0::{USER}/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope", None),
        (f"0::{USER}/init.scope", None),
        (f"0::/machine.slice/libpod-conmon-{ID}.scope", None),
        ("0::/init.scope", None),
        ("0::/", None),
        ("", None),
        ("nonsense", None),
        # names that a user chose
        (f"0::{USER}/app.slice/\x1b[2Jevil.service", None),
        (f"0::{USER}/app.slice/a b.service", None),
        (f"0::{USER}/app.slice/größe.service", None),
        (f"0::{USER}/job_5/step_0", None),
        ("0::/docker/3f2a9c1b7d44", None),  # no id
    ],
)
def test_the_unit_that_a_process_runs_in(path: str, unit: str | None) -> None:
    assert unit_in(f"{path}\n") == unit


@given(st.text(max_size=300))
def test_no_text_of_a_cgroup_reaches_a_terminal_unprintable(text: str) -> None:
    for cgroups in (text, f"0::/{text}.service", f"0::/slurm/job_{text}", f"1:cpu:/docker/{text}"):
        unit = unit_in(cgroups)
        assert unit is None or unit.isprintable()
        assert len(unit or "") <= COMMAND_LENGTH


def test_a_process_is_read_where_proc_lies(tmp_path: Path) -> None:
    proc = Proc(tmp_path / "proc")
    proc.run(300, command="\x1b[2Jtrain" + "x" * 100, cgroup="0::/system.slice/a.service")
    root = str(proc.folder)
    assert (command_of(300, root) or "").startswith("[2Jtrainxxx")
    assert len(command_of(300, root) or "") == COMMAND_LENGTH
    assert unit_of(300, root) == "a.service"
    assert UserNames().owner_of(300, root) == UserNames().name_of(os.getuid())
    gone = (command_of(301, root), unit_of(301, root), UserNames().owner_of(301, root))
    assert gone == (None, None, None)


def test_pids_mean_here_what_they_mean_to_the_driver_on_the_host_alone(tmp_path: Path) -> None:
    host, inside = Proc(tmp_path / "host"), Proc(tmp_path / "inside", namespace="pid:[4026532574]")
    assert sees_pids_of_the_driver(str(host.folder))
    assert not sees_pids_of_the_driver(str(inside.folder))
    assert sees_pids_of_the_driver(str(tmp_path))  # a kernel that has no such namespaces
