"""How well a card is: what somebody should see to, and what keeps jobs away from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pynvml

from gpuq.core.units import count
from gpuq.daemon.gpus.nvml.errors import optional, watts

# nvmlDeviceGpuRecoveryAction_t and its field, by number: older pynvml has no names for them. What
# each asks for: docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt, "Recovery action flag".
RECOVERY_ACTION = 230
_RECOVERY_NONE = 0

_HEAT = (
    pynvml.nvmlClocksEventReasonHwThermalSlowdown | pynvml.nvmlClocksEventReasonSwThermalSlowdown
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    text: str
    is_defect: bool = False
    is_lasting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    power_limit_w: float | None
    is_kept_awake: bool | None  # persistence mode; None: there is no such thing here
    findings: tuple[Finding, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(finding.text for finding in self.findings if not finding.is_defect)

    @property
    def defect(self) -> str | None:
        return "; ".join(one.text for one in self.findings if one.is_defect) or None

    @property
    def is_lasting(self) -> bool:
        return any(finding.is_lasting for finding in self.findings)


_RECOVERIES = {
    1: Finding(
        text="needs a reset, says its driver: nvidia-smi --gpu-reset once nothing runs on it",
        is_defect=True,
        is_lasting=True,
    ),
    2: Finding(
        text="needs a reboot of this machine, says its driver", is_defect=True, is_lasting=True
    ),
    # Once its traffic has ended the driver asks for something else, or for nothing.
    3: Finding(
        text="needs all traffic between GPUs to end, says its driver: end the jobs on several GPUs",
        is_defect=True,
    ),
    4: Finding(
        text=(
            "works at reduced capacity, says its driver: nvidia-smi --gpu-reset once its jobs "
            "have ended"
        ),
        is_defect=True,
        is_lasting=True,
    ),
}


def read_health(handle: Any) -> Health:
    """Of a card. Raises what makes the handle worthless; what it does not support is not ill."""
    persistence = optional(pynvml.nvmlDeviceGetPersistenceMode, handle)
    awake = None if persistence is None else persistence == pynvml.NVML_FEATURE_ENABLED
    findings = [
        *_memory_errors(handle),
        *_row_remapping(handle),
        *_page_retirement(handle),
        *_recovery(handle),
        *_slowdowns(handle),
    ]
    if awake is False:
        findings.append(Finding(text=_ASLEEP))
    return Health(
        power_limit_w=watts(optional(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        is_kept_awake=awake,
        findings=tuple(findings),
    )


_ASLEEP = (
    "persistence mode is off: an idle GPU falls asleep, and the next job waits seconds for it "
    "(nvidia-smi -pm 1, or nvidia-persistenced)"
)


def _memory_errors(handle: Any) -> Iterator[Finding]:
    errors = optional(
        pynvml.nvmlDeviceGetTotalEccErrors,
        handle,
        pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
        pynvml.NVML_VOLATILE_ECC,
    )
    if errors:
        yield Finding(
            text=f"{count(errors, 'uncorrectable memory error')} since the driver was loaded: "
            "see nvidia-smi -q -d ECC"
        )


def _row_remapping(handle: Any) -> Iterator[Finding]:
    remapped = optional(pynvml.nvmlDeviceGetRemappedRows, handle)
    _, _, is_pending, has_failed = remapped or (0, 0, 0, 0)
    if has_failed:
        yield Finding(
            text="has bad memory rows and no spare ones left for them: it may have to be replaced "
            "(nvidia-smi -q -d ROW_REMAPPER)",
            is_defect=True,
        )
    if is_pending:
        yield Finding(
            text="bad memory rows wait to be remapped: nvidia-smi --gpu-reset once nothing runs"
        )


def _page_retirement(handle: Any) -> Iterator[Finding]:
    if optional(pynvml.nvmlDeviceGetRetiredPagesPendingStatus, handle):
        yield Finding(
            text="bad memory pages wait to be retired: nvidia-smi --gpu-reset once nothing runs"
        )


def _recovery(handle: Any) -> Iterator[Finding]:
    fields = optional(pynvml.nvmlDeviceGetFieldValues, handle, [RECOVERY_ACTION])
    if fields is None or fields[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return
    action = int(fields[0].value.uiVal)
    if action != _RECOVERY_NONE:
        unknown = Finding(text=f"its driver asks for recovery action {action}: see nvidia-smi -q")
        yield _RECOVERIES.get(action, unknown)


def _slowdowns(handle: Any) -> Iterator[Finding]:
    reasons = optional(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if reasons is None:  # its name before driver 535
        reasons = optional(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
    if reasons & _HEAT:
        yield Finding(text="slowed down by heat: see its fans and the air around it")
    elif reasons & pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown:
        yield Finding(text="slowed down by a power brake: see the power supply of this machine")
    elif reasons & pynvml.nvmlClocksEventReasonHwSlowdown:
        yield Finding(text="slowed down by its hardware, for heat or power: see nvidia-smi -q")
