"""`launch`: starts a pod's ranks as torchrun would, by the same `PET_*` variables, and ends as the first that failed.

torchrun turns every exit code into 1, and kills ranks 30 s after a SIGTERM though one of them may still be saving.
Here a rank's code is the pod's code, SIGTERM is passed on and the ranks may save, and one dead rank takes the others
with it. Rendezvous is static: rank 0's node is PET_MASTER_ADDR.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dreambooth_api.exits import ExitCode
from dreambooth_api.names import MASTER_PORT

POLL = 0.1
# Ranks notice a lost peer by themselves and say so; those that hang in a collective are killed after this, seconds.
GRACE = 15.0


def rank_environments(env: dict[str, str]) -> list[dict[str, str]]:
    """The environment of each rank of this node, from torchrun's variables in `env`."""
    nodes = int(env.get("PET_NNODES", "1").split(":")[-1])
    per_node = int(env.get("PET_NPROC_PER_NODE", "1"))
    node = int(env.get("PET_NODE_RANK", "0"))
    return [
        {
            **env,
            "RANK": str(node * per_node + local),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(nodes * per_node),
            "LOCAL_WORLD_SIZE": str(per_node),
            "GROUP_RANK": str(node),
            "MASTER_ADDR": env.get("PET_MASTER_ADDR", "127.0.0.1"),
            "MASTER_PORT": env.get("PET_MASTER_PORT", str(MASTER_PORT)),
        }
        for local in range(per_node)
    ]


def launch(job_file: Path, port: int) -> int:
    """Run this node's ranks to their end; returns the exit code of the first that failed, else 0."""
    command = [sys.executable, "-m", "dreambooth_trainer", "train", "--job", str(job_file), "--port", str(port)]
    ranks = [subprocess.Popen(command, env=env) for env in rank_environments(dict(os.environ))]

    def forward(number: int, _frame: object) -> None:
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    return watch(ranks)


def watch(ranks: list[subprocess.Popen]) -> int:
    """Wait for all ranks; the first failure is the result, and ends the others."""
    first, deadline = 0, float("inf")
    while any(rank.poll() is None for rank in ranks):
        failed = next((rank for rank in ranks if rank.poll()), None)
        if failed is not None and not first:
            first = exit_code(failed.returncode)
            # Rank 0 may still be committing what all of them stopped for.
            if first != ExitCode.SAVED_ON_SIGTERM:
                deadline = time.monotonic() + GRACE
        if time.monotonic() > deadline:
            for rank in ranks:
                if rank.poll() is None:
                    rank.kill()
            deadline = float("inf")
        time.sleep(POLL)
    codes = [exit_code(rank.returncode) for rank in ranks]
    return first or next((code for code in codes if code), 0)


def exit_code(returncode: int) -> int:
    """A process's exit status as a shell gives it: death by signal N is 128 + N."""
    return 128 - returncode if returncode < 0 else returncode
