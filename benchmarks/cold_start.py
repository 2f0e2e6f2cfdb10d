"""How long does the first picture of a sleeping subject take? python benchmarks/cold_start.py [--times 10] [--out FILE]

On a real cluster with the chart installed (KUBECONFIG's, else the local one of `make up`): a LoRA subject on pods of
its own, and one in a pool, both with `minReplicas: 0`. Again and again: once there is no pod left, one request goes to
the gateway, as a stream. Measured are the time until the first byte and until the whole picture, and what it was made
of: what the API server told, by this machine's clock, and what the replica says of its own start. Random weights:
nothing is trained. One JSON object, seconds; progress goes to stderr. The clocks of machine and nodes must agree.
"""

import argparse
import json
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from kubernetes import client, config, watch
from minio import Minio
from prometheus_client.parser import text_string_to_metric_families
from timed.report import tell
from training import machine

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests/server"))

from server_kit import write_card, write_lora, write_manifest  # noqa: E402

from dreambooth_api import names  # noqa: E402
from dreambooth_demo import platform  # noqa: E402
from dreambooth_demo.access import model_url  # noqa: E402
from dreambooth_demo.kube import Kube  # noqa: E402
from dreambooth_demo.store import EXAMPLES_PREFIX, open_store, upload_examples  # noqa: E402
from dreambooth_demo.watch import wait_for_model  # noqa: E402
from dreambooth_local.places import places  # noqa: E402

BASE = ROOT / "examples/base"
SUBJECT, STEPS, GOAL = "rusty", 8, 10.0
SCALING = {
    "minReplicas": 0, "maxReplicas": 1, "idleSeconds": 5,
    "template": {"resources": {"requests": {"cpu": "250m", "memory": "384Mi"}, "limits": {"memory": "2Gi"}}},
}  # fmt: skip
LIMIT = 180.0
Body = dict[str, Any]


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Sleeper:
    """A subject, the Deployment that is to draw it, and its pods' label."""

    model: str
    deployment: str
    selector: str


OWN = Sleeper("alone", names.endpoint("alone"), f"{names.LABEL_MODEL}=alone")
POOLED = Sleeper("shared", names.pool("default"), f"{names.LABEL_POOL}=default")


@dataclass
class Watched:
    """Deployments and pods of a namespace as the API server told of them, by this machine's clock."""

    namespace: str
    deployments: list[tuple[float, Body]] = field(default_factory=list)
    pods: list[tuple[float, Body]] = field(default_factory=list)

    def begin(self, kubeconfig: Path) -> None:
        """From now on, in threads of their own."""
        api = config.new_client_from_config(str(kubeconfig))
        sources = (
            (client.AppsV1Api(api).list_namespaced_deployment, self.deployments),
            (client.CoreV1Api(api).list_namespaced_pod, self.pods),
        )
        for source, told in sources:
            threading.Thread(target=self._follow, args=(source, told), daemon=True).start()

    def _follow(self, source: Callable[..., Any], told: list[tuple[float, Body]]) -> None:
        while True:
            try:
                for event in watch.Watch().stream(source, self.namespace):
                    told.append((time.time(), event["raw_object"]))
            except Exception as e:  # The thread's edge: a watch that ended begins anew.
                say(f"watching again: {type(e).__name__}: {e}")
                time.sleep(0.2)


def first(told: list[tuple[float, Body]], since: float, holds: Callable[[Body], Any]) -> tuple[float, Body]:
    """When, and in which state, something was told after `since`. Raises LookupError."""
    for at, body in list(told):
        if at >= since and holds(body):
            return at, body
    raise LookupError("the API server told nothing of it")


def is_ready(pod: Body) -> bool:
    """Whether a pod has the condition Ready."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def wait(what: Callable[[], Any], why: str) -> Any:
    """The first true answer. Raises TimeoutError."""
    deadline = time.monotonic() + LIMIT
    while not (found := what()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{why}: not within {LIMIT:.0f} s")
        time.sleep(0.5)
    return found


@dataclass(frozen=True)
class Stage:
    """The benchmark's namespace."""

    kube: Kube
    namespace: str

    def asleep(self, sleeper: Sleeper) -> bool:
        """Whether there is neither a replica nor a pod that ends."""
        deployment = self.kube.get("deployment", sleeper.deployment, self.namespace) or {}
        return deployment.get("spec", {}).get("replicas") == 0 and not self.kube.list(
            "pods", "-n", self.namespace, "-l", sleeper.selector
        )

    def metrics(self, pod: str) -> dict[str, float]:
        """What a replica says of itself: series without labels but `stage` and `model`, summed."""
        text = self.kube.kubectl("get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/{pod}:8080/proxy/metrics")
        found: dict[str, float] = {}
        for sample in (s for family in text_string_to_metric_families(text) for s in family.samples):
            name = sample.labels.get("stage") or sample.name
            found[name] = found.get(name, 0.0) + sample.value
        return found


def ask(url: str, model: str, seed: int) -> tuple[float, float, float]:
    """One streamed picture: when it was asked for, when the first byte came, and the last. Raises httpx.HTTPError."""
    body = {"model": model, "prompt": f"a photo of {model} in the snow", "steps": STEPS, "seed": seed, "stream": True}
    asked, begun, text = time.time(), 0.0, b""
    with httpx.stream("POST", f"{url}/v1/images/generations", json=body, timeout=LIMIT) as answer:
        if answer.is_error:
            answer.read()
            raise RuntimeError(f"status {answer.status_code}: {answer.text}")
        for chunk in answer.iter_raw():
            begun = begun or time.time()
            text += chunk
    if b"image_generation.completed" not in text:
        raise RuntimeError(f"no picture: {text[-500:]!r}")
    return asked, begun, time.time()


def taken_apart(told: dict[str, float], replica: dict[str, float]) -> dict[str, float]:
    """What the time from the request to the whole picture was made of, in order, seconds. Pure.

    `told`: moments, seconds since 1970: asked, scaled, scheduled, ready, begun, drawn; `replica`: its metrics.
    """
    began = replica["process_start_time_seconds"]
    stages = {name: replica[name] for name in ("process", "artifact", "base", "libraries", "weights", "picture")}
    loaded = began + sum(stages.values())
    arrived = told["drawn"] - replica["dreambooth_request_duration_seconds_sum"]
    return {
        "woken: the Deployment has a replica": told["scaled"] - told["asked"],
        "pod made and scheduled": told["scheduled"] - told["scaled"],
        "container and process begun": began - told["scheduled"],
        **{f"replica: {name}": seconds for name, seconds in stages.items()},
        "pod told to be ready": told["ready"] - loaded,
        "routed": arrived - told["ready"],
        "first step drawn and told": told["begun"] - arrived,
        "rest drawn": told["drawn"] - told["begun"],
    }


def once(stage: Stage, watched: Watched, sleeper: Sleeper, url: str, seed: int) -> dict[str, Any]:
    """One start from zero."""
    for each in (OWN, POOLED):
        wait(partial(stage.asleep, each), f"{each.model} asleep")
    # Whatever the end of the last pod set going is over.
    time.sleep(2)
    load, spent = os.getloadavg()[0], time.process_time()
    asked, begun, drawn = ask(url, sleeper.model, seed)
    time.sleep(1)  # the watch may be behind
    key, _, value = sleeper.selector.partition("=")

    def its(pod: Body) -> bool:
        return pod["metadata"].get("labels", {}).get(key) == value

    def scaled(deployment: Body) -> bool:
        return deployment["metadata"]["name"] == sleeper.deployment and deployment["spec"].get("replicas", 1) > 0

    ready, pod = first(watched.pods, asked, lambda pod: its(pod) and is_ready(pod))
    told = {
        "asked": asked, "scaled": first(watched.deployments, asked, scaled)[0],
        "scheduled": first(watched.pods, asked, lambda pod: its(pod) and pod["spec"].get("nodeName"))[0],
        "ready": ready, "begun": begun, "drawn": drawn,
    }  # fmt: skip
    replica = stage.metrics(pod["metadata"]["name"])
    found = {
        "first byte": begun - asked, "whole picture": drawn - asked, "parts": taken_apart(told, replica),
        "requests at the replica": replica["dreambooth_request_duration_seconds_count"],
        "load average before": round(load, 2),
        "processor seconds of this program": round(time.process_time() - spent, 2),
    }  # fmt: skip
    say(f"{sleeper.model}: first byte {begun - asked:.2f} s, whole picture {drawn - asked:.2f} s")
    return found


def percentiles(values: list[float]) -> dict[str, float]:
    """p50 and p95 by nearest rank, seconds."""
    ordered = sorted(values)
    return {"p50": round(median(ordered), 2), "p95": round(ordered[round(0.95 * (len(ordered) - 1))], 2)}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Percentiles of the whole and of each part, beside the runs. Raises ValueError when there are none."""
    if not runs:
        raise ValueError("not one start ended well: see above")
    return {
        **{what: percentiles([run[what] for run in runs]) for what in ("first byte", "whole picture")},
        "made of": {part: percentiles([run["parts"][part] for run in runs]) for part in runs[0]["parts"]},
        "runs": [{**run, "parts": {k: round(v, 3) for k, v in run["parts"].items()}} for run in runs],
    }


def put_artifact(store: Minio, bucket: str, prefix: str) -> dict[str, str]:
    """A random LoRA on the store's example base; what `spec.artifact` says of it."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_lora(folder, BASE, seed=1)
        card = write_card(folder, BASE, name=SUBJECT)
        base = card.base.model_copy(update={"uri": f"s3://{bucket}/{EXAMPLES_PREFIX}/base"})
        (folder / names.MODEL_CARD).write_text(card.model_copy(update={"base": base}).model_dump_json(by_alias=True))
        digest = write_manifest(folder)
        for path in sorted(folder.iterdir()):
            store.fput_object(bucket, f"{prefix}/{path.name}", str(path))
    return {"uri": f"s3://{bucket}/{prefix}", "digest": digest}


def resource(kind: str, name: str, spec: Body) -> Body:
    """A resource of ours."""
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def find_cluster() -> Kube:
    """KUBECONFIG's, else the local one. Raises SystemExit when there is none."""
    if given := os.environ.get("KUBECONFIG"):
        return Kube(Path(given.split(":")[0]))
    local = places(os.environ).kubeconfig
    if not local.exists():
        raise SystemExit("no cluster: say `make up`, or set KUBECONFIG")
    return Kube(local, local=True)


@contextmanager
def prepared(kube: Kube) -> Iterator[Stage]:
    """A namespace with the Secret of a store, on a cluster with the chart; deleted in the end."""
    stage = Stage(kube, f"cold-start-{secrets.token_hex(3)}")
    kube.apply(platform.namespace_manifest(stage.namespace))
    try:
        known = kube.list("secrets", "-A", f"--field-selector=metadata.name={names.STORE_SECRET}")
        if kube.get("deployment", f"{platform.RELEASE}-gateway", platform.NAMESPACE) is None or not known:
            say("installing the chart")
            spaces = [secret["metadata"]["namespace"] for secret in known]
            platform.install(kube, ROOT / "charts/dreambooth", [stage.namespace, *spaces])
        else:
            metadata = {"name": names.STORE_SECRET, "namespace": stage.namespace}
            kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": known[0]["data"]})
        yield stage
    finally:
        kube.kubectl("delete", "personalizedmodels,servingpools", "--all", "-n", stage.namespace, "--timeout=120s")
        kube.kubectl("delete", "namespace", stage.namespace, "--timeout=180s")


def set_up(stage: Stage) -> None:
    """Both subjects, served once, so that image and artifact are known to be good."""
    store, bucket = open_store(stage.kube, stage.namespace)
    upload_examples(store, bucket, ROOT / "examples")
    artifact = put_artifact(store, bucket, f"{stage.namespace}/{SUBJECT}")
    base = {"uri": f"s3://{bucket}/{EXAMPLES_PREFIX}/base"}
    for body in (
        resource(names.MODEL_KIND, OWN.model, {"artifact": artifact, "serving": {"mode": "Dedicated", **SCALING}}),
        resource(names.POOL_KIND, "default", {"baseModel": base, **SCALING}),
        resource(names.MODEL_KIND, POOLED.model, {"artifact": artifact, "serving": {"mode": "Shared"}}),
    ):
        stage.kube.kubectl("apply", "-n", stage.namespace, "-f", "-", stdin=json.dumps(body))
    for sleeper in (OWN, POOLED):
        wait_for_model(stage.kube, stage.namespace, sleeper.model, say, LIMIT)


def measure(kube: Kube, times: int) -> dict[str, Any]:
    """Both subjects in turns, `times` each."""
    runs: dict[str, list[dict[str, Any]]] = {OWN.model: [], POOLED.model: []}
    failures: list[str] = []
    with prepared(kube) as stage:
        set_up(stage)
        watched = Watched(stage.namespace)
        watched.begin(kube.kubeconfig)
        for seed in range(times):
            for sleeper in (OWN, POOLED):
                url = model_url(kube, stage.namespace, sleeper.model)
                try:
                    runs[sleeper.model].append(once(stage, watched, sleeper, url, seed))
                except (httpx.HTTPError, LookupError, RuntimeError, TimeoutError) as e:
                    failures.append(f"{sleeper.model}: {type(e).__name__}: {e}")
                    say(failures[-1])
    found = {"pods of its own": summary(runs[OWN.model]), "pool": summary(runs[POOLED.model])}
    return {**found, "failures": failures}


def goals(found: dict[str, Any]) -> dict[str, Any]:
    """The issue's goal, for both."""
    sides = ("pods of its own", "pool")
    rows = {f"whole picture p50, {side}, seconds": found[side]["whole picture"]["p50"] for side in sides}
    return {name: {"value": value, "goal": GOAL, "met": value <= GOAL} for name, value in rows.items()}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="starts of each")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(find_cluster(), options.times)
    report = {**found, "steps": STEPS, "machine": machine(1), "goals": goals(found)}
    tell(report, options.out)


if __name__ == "__main__":
    main()
