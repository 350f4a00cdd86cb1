"""A job sees the GPUs that it was given, and no other."""

from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.gpus.gpu import Gpu
from gpuq.core.gpus.visibility import job_gpu_environment
from gpuq.protocol import DROPPED_VARIABLES


def gpu(index: int, *, simulated: bool = False, uuid: str | None = None) -> Gpu:
    return Gpu(index=index, uuid=uuid or f"GPU-{index:08x}", model="H100", simulated=simulated)


def test_a_whole_machine_gives_ordinals_in_bus_order() -> None:
    assert job_gpu_environment([gpu(1), gpu(3)], whole=True, visible="auto") == {
        "CUDA_VISIBLE_DEVICES": "1,3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NVIDIA_VISIBLE_DEVICES": "GPU-00000001,GPU-00000003",
        "GPUQ_GPU_INDICES": "1,3",
        "GPUQ_GPU_UUIDS": "GPU-00000001,GPU-00000003",
        "GPUQ_DEVICE": "cuda",
    }


def test_a_missing_gpu_would_shift_the_ordinals_so_uuids_are_given() -> None:
    environment = job_gpu_environment([gpu(1)], whole=False, visible="auto")
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-00000001"
    assert environment["GPUQ_GPU_INDICES"] == "1"


def test_a_person_may_force_either() -> None:
    by_uuid = job_gpu_environment([gpu(2)], whole=True, visible="uuid")
    by_index = job_gpu_environment([gpu(2)], whole=False, visible="index")
    assert by_uuid["CUDA_VISIBLE_DEVICES"] == "GPU-00000002"
    assert by_index["CUDA_VISIBLE_DEVICES"] == "2"


def test_a_job_without_gpus_sees_none() -> None:
    assert job_gpu_environment([], whole=True, visible="auto") == {
        "CUDA_VISIBLE_DEVICES": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NVIDIA_VISIBLE_DEVICES": "void",
        "GPUQ_GPU_INDICES": "",
        "GPUQ_GPU_UUIDS": "",
        "GPUQ_DEVICE": "cpu",
    }


def test_an_instance_of_mig_has_no_ordinal() -> None:
    instance = gpu(0, uuid="MIG-5f0c9a0e")
    environment = job_gpu_environment([instance], whole=True, visible="index")
    assert environment["CUDA_VISIBLE_DEVICES"] == "MIG-5f0c9a0e"


@given(
    indices=st.lists(st.integers(0, 63), unique=True),
    whole=st.booleans(),
    visible=st.sampled_from(["auto", "uuid", "index"]),
    simulated=st.booleans(),
)
def test_what_a_job_sees_are_its_gpus_in_their_order(
    indices: list[int], whole: bool, visible: str, simulated: bool
) -> None:
    gpus = [gpu(index, simulated=simulated) for index in indices]
    environment = job_gpu_environment(gpus, whole=whole, visible=visible)

    seen = [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name]
    uuids, ordinals = [one.uuid for one in gpus], [str(one.index) for one in gpus]
    assert seen in (uuids, ordinals)
    if simulated:
        assert seen == uuids  # an ordinal would open a real GPU
    assert all("\0" not in value for value in environment.values())


def test_what_a_shell_has_set_is_not_inherited_beside_it() -> None:
    given_to_jobs = set(job_gpu_environment([gpu(0)], whole=True, visible="auto"))
    assert {name for name in given_to_jobs if not name.startswith("GPUQ_")} <= DROPPED_VARIABLES
