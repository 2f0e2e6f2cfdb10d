"""The local cluster: python3 -m dreambooth_local up|down|images|status"""

from __future__ import annotations

import argparse
import json
import os
import sys

from dreambooth_local import cluster, health, images, teardown
from dreambooth_local.capability import capable
from dreambooth_local.commands import CommandFailed
from dreambooth_local.locks import alone
from dreambooth_local.places import Places, places
from dreambooth_local.progress import Progress, Step, StepFailed
from dreambooth_local.up import up


def main() -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="dreambooth_local", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "images", "status"])
    command = parser.parse_args().command
    where, progress = places(os.environ), Progress()
    try:
        {"up": bring_up, "down": take_down, "images": renew_images, "status": status}[command](where, progress)
    except (StepFailed, CommandFailed, cluster.NotUp) as e:
        print(f"dreambooth_local {command}: {e}\nlogs: {where.logs} and {where.state / 'log'}", file=sys.stderr)
        return 1
    return 0


def bring_up(where: Places, progress: Progress) -> None:
    """Everything; prints where it went."""
    if reasons := capable():
        raise cluster.NotUp("this machine cannot have a local cluster: " + "; ".join(reasons))
    up(where, progress)
    if progress.seconds:
        table = "\n".join(f"  {name:<28}{seconds:8.1f} s" for name, seconds in progress.breakdown().items())
        progress.say(f"where the time went (steps overlap)\n{table}")
    progress.say(f"export KUBECONFIG={where.kubeconfig}")


def take_down(where: Places, progress: Progress) -> None:
    """Nothing is left but the cache."""
    with alone(where.lock):
        if not teardown.is_ours(where.state):
            raise cluster.NotUp(f"{where.state} holds something that is not this cluster's: nothing was removed")
        progress.say(teardown.down(where))


def renew_images(where: Places, progress: Progress) -> None:
    """Images of the present sources, on a cluster that runs."""
    with alone(where.lock):
        progress.run([
            Step("build images", lambda: images.build(where)),
            Step("images on the node", lambda: images.load(where), ["build images"]),
        ])  # fmt: skip


def status(where: Places, progress: Progress) -> None:
    """JSON: whether it runs, what is wrong, where the kubeconfig is."""
    wrong = health.complaints(where) if where.kubeconfig.exists() else ["it was not brought up"]
    print(json.dumps({"running": not wrong, "complaints": wrong, "kubeconfig": str(where.kubeconfig)}))


if __name__ == "__main__":
    sys.exit(main())
