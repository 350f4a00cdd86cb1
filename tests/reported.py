"""What attempts report, as `gpuq.job` would have written it."""


def numbered(*numbers: int, by: str = "a") -> str:
    return "".join(f'{{"by": "{by}", "n": {n}, "v": {{"step": {n}}}}}\n' for n in numbers)
