"""The code that a job's end has in a shell. Apart from the rest of an end's meaning, since every
`gpuq run` and `wait` loads it."""

NO_CODE = 125  # as timeout(1) and env(1) have it for failures of their own


def shell_code(outcome: str | None, exit_code: int | None, signal: int | None) -> int:
    """What `run` and `wait` give to the shell: the job's own code wherever it has one. `outcome` is the
    word of an Outcome: the model takes longer to load than the rest of `wait`."""
    if exit_code or (exit_code == 0 and outcome == "succeeded"):
        return exit_code
    if signal is not None:
        return 128 + signal
    return 0 if outcome == "succeeded" else NO_CODE
