"""Signs in the name of an output file that stand for the job, as Slurm has them: "%x-%A_%a.log".

https://slurm.schedmd.com/sbatch.html#SECTION_FILENAME-PATTERN
"""

import re
from dataclasses import dataclass

_SIGN = re.compile(r"%(\d{0,2})([AaJjNbnstux%])")
OWN_SIGNS = frozenset("ajJ")  # those that differ from element to element


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What the signs stand for. `array` is the id of the array's first element, `index` the element's
    own; of a job that is in no array it is the job's id, and 0."""

    job: int
    array: int
    index: int
    name: str
    user: str
    node: str


def expand(text: str, naming: Naming) -> str:
    """The name with its signs replaced; a number behind % pads with zeros ("%4a"). What is no sign
    stays, and %% is one %."""
    if "%" not in text:
        return text
    values = {
        "j": str(naming.job),
        "J": str(naming.job),
        "A": str(naming.array),
        "a": str(naming.index),
        "b": str(naming.index % 10),
        "n": "0",
        "s": "batch",
        "t": "0",
        "N": naming.node,
        "u": naming.user,
        "x": naming.name.replace("/", "_"),
        "%": "%",
    }
    return _SIGN.sub(lambda match: _padded(values[match[2]], match[1]), text)


def _padded(value: str, width: str) -> str:
    return value.zfill(int(width)) if width and value.isdecimal() else value


def differs_by_element(text: str) -> bool:
    return any(match[2] in OWN_SIGNS for match in _SIGN.finditer(text))
