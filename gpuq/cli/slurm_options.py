"""Slurm's spellings on the command line, said in our words."""

from typing import Any

from gpuq.core.asked.sbatch import NotUnderstood, translate
from gpuq.errors import UsageError

_OURS = {
    "--gpus": "gpus",
    "--gpu-model": "gpu_model",
    "--name": "name",
    "--cpus": "cpus",
    "--cwd": "cwd",
    "--priority": "priority",
}


def translated(own: dict[str, Any], spelled: dict[str, str]) -> dict[str, Any]:
    """Our options with what Slurm's say; UsageError where both say something."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in spelled.items()]
    try:
        translation = translate([(0, words)], _OURS, list)
    except NotUnderstood as error:
        raise UsageError(str(error)) from None
    if translation.ignored:  # of gres there are others than GPUs
        raise UsageError(f"--gres={spelled['gres']}: only gpu means something here, as in gpu:2")
    joined = dict(own)
    for _, said in translation.words:
        for option, value in zip(said[::2], said[1::2], strict=True):
            name = _OURS[option]
            if own[name] is not None:
                raise UsageError(f"{option} is there twice, once in Slurm's spelling")
            joined[name] = int(value) if name in ("gpus", "cpus", "priority") else value
    return joined
