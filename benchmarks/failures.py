"""How soon is each failure told? python benchmarks/failures.py [--node] [--write], with KUBECONFIG of a cluster on
which `make demo` has run.

Each failure is made on the real cluster, by real trainers where it happens in them; measured is the time until the
job's condition `Failed` has its reason. `--node` stops the local cluster's kubelet for a minute. One JSON object;
`--write` keeps it as benchmarks/results/failures.json.
"""

import argparse
import contextlib
import copy
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.timed.report import host, tell  # noqa: E402
from dreambooth_api import names  # noqa: E402
from dreambooth_demo.kube import Kube  # noqa: E402
from dreambooth_demo.platform import NAMESPACE as PLATFORM  # noqa: E402
from dreambooth_demo.platform import RELEASE, namespace_manifest  # noqa: E402
from tests.cluster.stopping import kubelet, stopped  # noqa: E402
from tests.cluster.test_operator_lifecycle import STAND_IN, job  # noqa: E402

SPACE = "benchmark-failures"
LIMIT, SETTLE = 180.0, 15.0
Body = dict[str, Any]


class Stage:
    """The benchmark's namespace."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl in the namespace. Raises KubeError."""
        return self.kube.kubectl("-n", SPACE, *arguments, stdin=stdin)

    def apply(self, *bodies: Body) -> None:
        """kubectl apply in the namespace."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(bodies))

    def pods(self, name: str) -> list[Body]:
        """The training pods of a job that run, by rank."""
        selector = f"{names.LABEL_JOB}={name},{names.LABEL_COMPONENT}={names.COMPONENT_TRAIN}"
        found = [p for p in self.kube.list("pods", "-n", SPACE, "-l", selector) if p["status"]["phase"] == "Running"]
        return sorted(found, key=lambda pod: pod["metadata"]["name"])

    def reason(self, name: str) -> str:
        """The reason of a job's condition Failed."""
        status = (self.kube.get("dreamboothjob", name, SPACE) or {}).get("status") or {}
        return next((c["reason"] for c in status.get("conditions", []) if c["type"] == "Failed"), "")

    def training(self, name: str) -> list[Body]:
        """Wait until a job of two pods trains; the pods."""

        def begun() -> bool:
            status = (self.kube.get("dreamboothjob", name, SPACE) or {}).get("status") or {}
            steps = status.get("progress", {}).get("step", 0)
            well = status.get("phase") == "Training" and self.reason(name) == "Running" and steps > 0
            return well and len(self.pods(name)) == 2

        until(begun)
        # The process has begun before it trains.
        time.sleep(SETTLE)
        return self.pods(name)


def until(what: Callable[[], Any]) -> float:
    """Seconds until `what` is true. Raises TimeoutError."""
    begun = time.monotonic()
    while not what():
        if time.monotonic() - begun > LIMIT:
            raise TimeoutError
        time.sleep(0.2)
    return time.monotonic() - begun


def told(stage: Stage, name: str, reason: str, act: Callable[[], object]) -> float:
    """Seconds from the moment `act` is done until `reason` is told."""
    act()
    return until(lambda: stage.reason(name) == reason)


def after_end(stage: Stage, name: str) -> float:
    """Seconds, of a clock that ticks in seconds, from the end of a job's first failed pod until the job failed."""
    until(lambda: (stage.kube.get("dreamboothjob", name, SPACE) or {}).get("status", {}).get("phase") == "Failed")
    found = stage.kube.get("dreamboothjob", name, SPACE) or {}
    at = next(c["lastTransitionTime"] for c in found["status"]["conditions"] if c["type"] == "Failed")
    pods = stage.kube.list("pods", "-n", SPACE, "-l", f"{names.LABEL_JOB}={name}")
    ends = [p["status"]["containerStatuses"][0]["state"].get("terminated") for p in pods]
    first = min(end["finishedAt"] for end in ends if end and end["exitCode"])
    return max(0.0, (moment(at) - moment(first)).total_seconds())


def moment(text: str) -> datetime:
    """A time as Kubernetes writes it."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def waiting(stage: Stage) -> Iterator[tuple[str, str, float]]:
    """What keeps a job from starting, from when it is applied."""
    cases = {
        "no-gpu": ("Unschedulable", job("no-gpu", topology={"gpusPerNode": 1})),
        "no-secret": (
            "SecretNotFound",
            job("no-secret", baseModel={"uri": "hf://a/b", "secretRef": {"name": "none"}}),
        ),
        "no-pictures": (
            "DatasetNotFound",
            job("no-pictures", subject={"images": {"uri": "configMap://none"}, "className": "x"}),
        ),
    }
    for name, (reason, body) in cases.items():
        yield f"{name}, from apply", reason, told(stage, name, reason, lambda body=body: stage.apply(body))
        stage.kubectl("delete", "dreamboothjob", name)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    stage.apply(quota)
    body = job("no-quota")
    yield "quota, from apply", "Unschedulable", told(stage, "no-quota", "Unschedulable", lambda: stage.apply(body))
    stage.kubectl("delete", "dreamboothjob/no-quota", "resourcequota/none")


def ending(stage: Stage) -> Iterator[tuple[str, str, float]]:
    """Pods that fail, from when their container ended."""
    cases = {
        "bad-data": ("DatasetInvalid", job("bad-data", prepare="fault:DatasetInvalid:65")),
        "not-finite": ("NonFiniteLoss", job("not-finite", train="fault:NonFiniteLoss:67@1")),
        "gpu-memory": ("GpuOutOfMemory", job("gpu-memory", train="fault:GpuOutOfMemory:68@0")),
        "memory": ("OutOfMemory", job("memory", train="hog@0", backoffLimit=0)),
        "crash": ("BackoffLimitExceeded", job("crash", train="exit:1@1", backoffLimit=0)),
    }
    for name, (reason, body) in cases.items():
        stage.apply(body)
        seconds = after_end(stage, name)
        yield f"{name}, from the container's end", stage.reason(name), seconds
        assert stage.reason(name) == reason, (name, stage.reason(name))
        stage.kubectl("delete", "dreamboothjob", name)


def running(stage: Stage, example: Body) -> Iterator[tuple[str, str, float]]:
    """What befalls a real training of two pods."""
    name = example["metadata"]["name"]
    stage.apply(example)
    pods = stage.training(name)
    first, second = (pod["metadata"]["name"] for pod in pods)
    # The rank, not the process that started it: from inside, nobody can kill a container's first process.
    kill = (
        "import os,signal;os.kill(max(int(p) for p in os.listdir('/proc') if p.isdigit() and "
        "b'dreambooth_trainer\\0train' in open(f'/proc/{p}/cmdline','rb').read()),signal.SIGKILL)"
    )
    stage.kubectl("exec", second, "--", "python", "-c", kill)
    gone = until(lambda: first not in [pod["metadata"]["name"] for pod in stage.pods(name)])
    yield "a rank killed (SIGKILL): until its peer's pod has ended, too", "", gone
    stage.training(name)

    victim = stage.pods(name)[1]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": victim, "namespace": SPACE}}

    def evict() -> None:
        path = f"/api/v1/namespaces/{SPACE}/pods/{victim}/eviction"
        stage.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))

    yield "eviction", "Preempted", told(stage, name, "Preempted", evict)
    stage.training(name)
    # As of a node that stands still: nothing in the pod runs, and what asks it gets no answer.
    with stopped(*processes_of(stage.pods(name)[0])):
        yield "rank 0 frozen", "Unresponsive", told(stage, name, "Unresponsive", lambda: None)
    until(lambda: stage.reason(name) == "Running")
    for server, reason in (("mlflow", "TrackingUnavailable"), ("minio", "StoreUnavailable")):
        with away(stage.kube, server):
            yield f"{server} away", reason, told(stage, name, reason, lambda: None)
        until(lambda: stage.reason(name) == "Running")
    stage.kubectl("delete", "dreamboothjob", name)


@contextlib.contextmanager
def away(kube: Kube, server: str) -> Iterator[None]:
    """A server of the platform without pods, for a while."""
    name = f"deployment/{RELEASE}-{server}"
    # Its data is on a volume of its pod in the demo: the process is stopped, not deleted.
    pods = kube.list("pods", "-n", PLATFORM, "-l", f"app.kubernetes.io/component={server}")
    try:
        with stopped(*(process for pod in pods for process in processes_of(pod))):
            yield
    finally:
        kube.kubectl("rollout", "status", "-n", PLATFORM, name, "--timeout=120s")


def processes_of(pod: Body) -> list[int]:
    """Process ids, on this machine, of a pod of the local cluster."""
    mark = pod["metadata"]["uid"]
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                groups = (folder / "cgroup").read_text()
                if mark in groups or mark.replace("-", "_") in groups:
                    found.append(int(folder.name))
    return found


def lost(stage: Stage) -> Iterator[tuple[str, str, float]]:
    """The only node's kubelet falls silent."""
    stage.apply(job("lost", train="run"))
    stage.training("lost")
    silent = kubelet()
    if silent is None:
        raise SystemExit("--node: there is no local cluster's kubelet to stop")
    with stopped(silent):
        yield "kubelet silent", "NodeLost", told(stage, "lost", "NodeLost", lambda: None)
    until(lambda: stage.reason("lost") == "Running")
    stage.kubectl("delete", "dreamboothjob", "lost")


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", action="store_true", help="also stop the local cluster's kubelet for a while")
    parser.add_argument("--write", action="store_true", help="keep it under benchmarks/results")
    args = parser.parse_args()
    kube = Kube(Path(os.environ["KUBECONFIG"]))
    kube.apply(namespace_manifest(SPACE))
    secret = kube.get("secret", names.STORE_SECRET, "demo") or {}
    stage = Stage(kube)
    stage.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": names.STORE_SECRET}, "data": secret["data"]},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stand-in"},
         "data": {"dreambooth_trainer.py": STAND_IN.read_text()}},
    )  # fmt: skip
    example = copy.deepcopy(yaml.safe_load((ROOT / "examples/robot/job.yaml").read_text()))
    example["spec"]["training"]["steps"] = 20_000
    example["spec"]["checkpoints"]["everySteps"] = 20
    example["spec"]["scoring"]["everyCheckpoints"] = 0
    try:
        parts = [waiting(stage), ending(stage), running(stage, example), *([lost(stage)] if args.node else [])]
        found = {}
        for what, reason, seconds in (entry for part in parts for entry in part):
            found[what] = {"reason": reason, "seconds": round(seconds, 1)}
            print(what, found[what], file=sys.stderr, flush=True)
    finally:
        kube.kubectl("delete", "namespace", SPACE, "--timeout=180s")
    slowest = max(entry["seconds"] for entry in found.values())
    result = {
        "machine": host(platform=platform.platform(), load=os.getloadavg()),
        "failures": found,
        "goals": {"told within 30 s": {"value": slowest, "goal": 30, "met": slowest <= 30}},
    }
    tell(result, ROOT / "benchmarks/results/failures.json" if args.write else None)


if __name__ == "__main__":
    main()
