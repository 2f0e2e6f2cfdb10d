"""Until when this replica may write. Pure but for the clock."""

import math
import time

# Writes end this long before another replica may take the lease, seconds: for clocks of different speeds, and for a
# request that the API server still carries out after its sender gave it up.
MARGIN = 2.0


class NotLeading(Exception):
    """This replica does not hold the lease, or not for long enough to write anything."""


class Fence:
    """Closed until opened; open forever where no other replica can be."""

    def __init__(self) -> None:
        self._until = -math.inf

    def open(self, until: float = math.inf) -> None:
        """Writes are allowed until a moment of the monotonic clock."""
        self._until = until

    def close(self) -> None:
        """No more writes."""
        self._until = -math.inf

    def budget(self, most: float) -> float:
        """How long a write may take, at `most`, seconds. Raises NotLeading when there is no time for any."""
        left = self._until - MARGIN - time.monotonic()
        if left <= 0:
            raise NotLeading("another replica may be leading by now")
        return min(most, left)
