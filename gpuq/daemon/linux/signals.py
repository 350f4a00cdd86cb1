"""What `signal` has, without the enums that it makes of all numbers: with those, and what they take
along, launcher and runner would be half as large again. Standard library only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import *  # noqa: F403
else:
    from _signal import *  # noqa: F403
