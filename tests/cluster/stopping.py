"""Stops processes of the local cluster for a while, as where a node or a server hangs."""

import contextlib
import os
import signal
from collections.abc import Iterator

from dreambooth_local.places import places
from dreambooth_local.processes import Daemons


@contextlib.contextmanager
def stopped(*processes: int) -> Iterator[None]:
    """Processes, by their ids, that do nothing while the block lasts."""
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def kubelet() -> int | None:
    """The process id of the local cluster's kubelet; none where no such cluster runs."""
    return Daemons(places(os.environ).state).pid("kubelet")
