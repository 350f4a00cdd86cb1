import pytest

from gpuq.core.asked.containers import (
    container_words,
    find_container_run,
    refusal,
    removal,
    with_gpus,
)

UUIDS = ("GPU-aa", "GPU-bb")


def rewritten(text: str, **how: object) -> list[str]:
    argv = text.split()
    run = find_container_run(argv)
    assert run is not None
    plain: dict[str, object] = {"uuids": UUIDS, "simulated": False, "variables": {}}
    return with_gpus(argv, run, **(plain | {"cid_file": "/a/cid"} | how))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "docker run image",
        "podman run image",
        "/usr/bin/docker run image",
        "docker container run image",
        "docker -D --context there -H tcp://box:1 run image",
        "docker --host=tcp://box:1 --tlsverify run image",
        "podman --log-level debug --remote run -it image sh",
    ],
)
def test_it_is_recognised_with_a_path_and_with_options_before_run(text: str) -> None:
    assert find_container_run(text.split()) is not None


@pytest.mark.parametrize(
    "text",
    [
        "docker ps",
        "docker exec c run",
        "docker",
        "docker-compose run x",
        "sudo docker run image",
        "sh -c docker",
        "docker --context run",
        "podman build run",
        "mydocker run image",
    ],
)
def test_nothing_else_is_taken_for_one(text: str) -> None:
    assert find_container_run(text.split()) is None


def test_docker_gets_its_gpus_by_uuid_in_one_option() -> None:
    assert rewritten("docker run --rm image a b") == [
        *("docker", "run", "--cidfile=/a/cid", "--gpus", '"device=GPU-aa,GPU-bb"'),
        *("--rm", "image", "a", "b"),
    ]


def test_podman_gets_its_gpus_by_uuid_one_by_one() -> None:
    assert rewritten("podman --root /x run image") == [
        *("podman", "--root", "/x", "run", "--cidfile=/a/cid"),
        *("--device", "nvidia.com/gpu=GPU-aa", "--device", "nvidia.com/gpu=GPU-bb", "image"),
    ]


def test_the_variables_of_the_job_are_passed_by_name_and_no_others() -> None:
    variables = {"GPUQ_JOB_ID": "7", "GPUQ_DEVICE": "cuda", "HOME": "/home/ann", "SECRET": "x"}
    words = rewritten("docker run image", uuids=(), variables=variables)
    assert words[3:-1] == ["-e", "GPUQ_DEVICE", "-e", "GPUQ_JOB_ID"]


def test_there_is_no_device_behind_a_simulated_gpu() -> None:
    words = rewritten("docker run image", simulated=True, variables={"GPUQ_GPU_UUIDS": "x"})
    assert words == ["docker", "run", "--cidfile=/a/cid", "-e", "GPUQ_GPU_UUIDS", "image"]


@pytest.mark.parametrize(
    "option",
    [
        "--gpus all",
        "--gpus=all",
        "--device nvidia.com/gpu=all",
        "--device=/dev/nvidia0",
        "-e NVIDIA_VISIBLE_DEVICES=0",
        "-eNVIDIA_VISIBLE_DEVICES=0",
        "-ite NVIDIA_VISIBLE_DEVICES",
    ],
)
def test_who_chooses_gpus_by_an_option_is_given_none_beside_them(option: str) -> None:
    words = rewritten(f"docker run {option} image")
    assert words == ["docker", "run", "--cidfile=/a/cid", *option.split(), "image"]


def test_what_stands_behind_the_image_is_the_programs_own() -> None:
    assert refusal(["docker", "run", "image", "-d", "--cidfile", "x", "--gpus", "all"]) is None
    assert "--gpus" in rewritten("docker run image --gpus all")[:4]


@pytest.mark.parametrize(
    "text",
    [
        "docker run -d image",
        "docker run --rm --detach image",
        "docker run -itd image",
        "docker run -v /a:/b --name x -dP image",
        "podman --log-level=info run --detach=true image",
        "docker run --network host --shm-size 8g -d image",
    ],
)
def test_one_that_would_end_at_once_is_refused(text: str) -> None:
    why = refusal(text.split())
    assert why is not None
    assert "Leave out -d" in why


@pytest.mark.parametrize(
    "text",
    [
        "docker run --detach=false image",
        "docker run --name -d image",
        "docker run -v -d image",
        "docker run --env-file=-d image",
        "docker run -- -d",
        "docker run --rm",
        "docker start -d",
        "python train.py -d",
    ],
)
def test_a_d_that_means_something_else_is_not(text: str) -> None:
    assert refusal(text.split()) is None


def test_the_file_of_its_id_is_not_the_users_to_name() -> None:
    assert "--cidfile" in str(refusal(["docker", "run", "--cidfile", "/tmp/x", "image"]))


def test_it_is_removed_by_the_same_client() -> None:
    docker = find_container_run(["docker", "--context", "there", "container", "run", "image"])
    podman = find_container_run(["podman", "run", "image"])
    assert docker is not None
    assert podman is not None
    assert removal(docker) == ["docker", "--context", "there", "rm", "-f"]
    assert removal(podman) == ["podman", "rm", "-f", "-t", "0"]


def test_people_are_told_which_gpus_it_gets() -> None:
    run = find_container_run(["docker", "run", "image"])
    own = find_container_run(["docker", "run", "--gpus", "all", "image"])
    assert run is not None
    assert own is not None
    assert container_words(run, gpus=2, simulated=False) == "docker, given its GPUs by UUID"
    assert "simulated" in container_words(run, gpus=2, simulated=True)
    assert container_words(run, gpus=0, simulated=False) == "docker, given no GPU"
    assert container_words(own, gpus=2, simulated=False).endswith("its own options name")
