"""The share of one pod in what the pods of an Indexed Job do together."""

import os
from dataclasses import dataclass

# Kubernetes sets it in the pods of an Indexed Job.
COMPLETION_INDEX = "JOB_COMPLETION_INDEX"


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count`; by default all of it."""

    index: int = 0
    count: int = 1

    def part(self, total: int) -> range:
        """Which of `total` items are this share's."""
        return range(self.index, total, self.count)


def pod_shard(count: int) -> Shard:
    """The share of this pod, one of `count`; all of it where no Indexed Job made the pod."""
    index = os.environ.get(COMPLETION_INDEX)
    return Shard() if index is None else Shard(int(index), count)
