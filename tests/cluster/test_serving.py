"""Serving on a real cluster: subjects of one pool, one that sleeps, a canary that is rolled back.

Each test builds on what those before it made: replicas of torch are dear on two cores.
"""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import ImageChops

from dreambooth_api import names
from dreambooth_demo.access import model_url
from dreambooth_demo.pictures import draw
from dreambooth_demo.platform import NAMESPACE, RELEASE
from dreambooth_demo.store import open_store
from dreambooth_demo.watch import wait_for_model
from dreambooth_operator import clock
from tests.cluster.twin import put_twin
from tests.cluster.waiting import wait

SMALL = {"resources": {"requests": {"cpu": "100m", "memory": "384Mi"}, "limits": {"memory": "2Gi"}}}
PROMPT = "a photo of sks robot on grass"
BURST = 200


def model(name: str, artifact: dict[str, str], **serving: Any) -> dict[str, Any]:
    """A PersonalizedModel; without more said, of the pool `default`."""
    spec = {"artifact": artifact, "serving": serving or {"mode": "Shared"}}
    return {"apiVersion": names.API_VERSION, "kind": names.MODEL_KIND, "metadata": {"name": name}, "spec": spec}


@dataclass(frozen=True)
class Stage:
    """A namespace with two artifacts at hand."""

    cluster: Any
    robot: dict[str, str]
    twin: dict[str, str]

    def url(self, name: str) -> str:
        return model_url(self.cluster.kube, self.cluster.namespace, name)

    def ready(self, name: str, seconds: float) -> dict[str, Any]:
        return wait_for_model(self.cluster.kube, self.cluster.namespace, name, print, seconds)

    def status(self, name: str) -> dict[str, Any]:
        return (self.cluster.get("personalizedmodel", name) or {}).get("status") or {}

    def reasons(self, name: str) -> set[str]:
        return {condition["reason"] for condition in self.status(name).get("conditions", [])}

    def patch(self, name: str, **spec: Any) -> None:
        self.cluster.kubectl("patch", "pm", name, "--type=merge", "-p", json.dumps({"spec": spec}))


@pytest.fixture(scope="module")
def stage(module_cluster, trained) -> Stage:
    artifact = {key: trained.status["artifact"][key] for key in ("uri", "digest")}
    store, bucket = open_store(module_cluster.kube, module_cluster.namespace)
    return Stage(module_cluster, artifact, put_twin(store, bucket, artifact["uri"]))


def pool_pods(stage: Stage) -> dict[str, int]:
    """Pods of the pool → restarts."""
    pods = stage.cluster.list("pods", "-l", f"{names.LABEL_POOL}=default")
    return {p["metadata"]["uid"]: sum(s["restartCount"] for s in p["status"]["containerStatuses"]) for p in pods}


@pytest.fixture(scope="module")
def sleeper(stage: Stage) -> Stage:
    """A model of its own pods, without any while nobody asks, whose downloads outlive them."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    stage.cluster.apply({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "kept"}, "spec": claim,
    }, model(
        "sleeper", stage.robot, mode="Dedicated", minReplicas=0, maxReplicas=2, targetInFlight=4, idleSeconds=10,
        template=SMALL, cacheClaim="kept",
    ))  # fmt: skip
    return stage


@pytest.fixture(scope="module")
def pool(stage: Stage, sleeper: Stage) -> Stage:
    """A pool of one replica with the subject `robot` on it; meanwhile the sleeper goes to sleep."""
    base = {"uri": "s3://dreambooth/examples/base"}
    stage.cluster.apply({
        "apiVersion": names.API_VERSION, "kind": names.POOL_KIND, "metadata": {"name": "default"},
        "spec": {"baseModel": base, "minReplicas": 1, "maxReplicas": 1, "template": SMALL},
    }, model("robot", stage.robot))  # fmt: skip
    stage.ready("robot", 180)
    return stage


@dataclass(frozen=True)
class Traffic:
    """What clients got that asked all the while."""

    codes: list[int | str] = field(default_factory=list)


@contextmanager
def traffic(url: str, name: str, clients: int = 2) -> Iterator[Traffic]:
    """Clients that ask for one small picture after another."""
    seen, over, seeds = Traffic(), threading.Event(), itertools.count()

    def ask() -> None:
        while not over.is_set():
            body = {"model": name, "prompt": PROMPT, "steps": 2, "seed": next(seeds)}
            try:
                seen.codes.append(httpx.post(f"{url}/v1/images/generations", json=body, timeout=120).status_code)
            except httpx.HTTPError as e:
                seen.codes.append(repr(e))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_second_subject_joins_the_pool_in_a_minute_and_restarts_nothing(pool: Stage):
    before = pool_pods(pool)
    assert len(before) == 1
    begun = time.monotonic()
    pool.cluster.apply(model("twin", pool.twin))
    pool.ready("twin", 60)
    print(f"ready {time.monotonic() - begun:.1f} s after kubectl apply")
    robot, again, twin = (draw(pool.url(n), n, PROMPT, seed=5) for n in ("robot", "robot", "twin"))
    assert ImageChops.difference(robot, again).getbbox() is None
    assert ImageChops.difference(robot, twin).getbbox() is not None
    assert pool_pods(pool) == before
    assert pool.status("twin")["url"].endswith(f"/{pool.cluster.namespace}/twin/v1")


def test_a_slow_canary_is_rolled_back_and_no_request_fails(pool: Stage):
    rollout = {
        "strategy": "Canary", "steps": [50], "stepSeconds": 5, "analysis": {"maxErrorRate": 0.01, "maxP95Seconds": 1e-3}
    }  # fmt: skip
    pool.patch("robot", rollout=rollout)
    before = pool_pods(pool)
    with traffic(pool.url("robot"), "robot") as seen:
        wait(lambda: len(seen.codes) > 3)
        pool.patch("robot", artifact=pool.twin)
        wait(lambda: "AnalysisFailed" in pool.reasons("robot"), 60)
        weights = {r["digest"]: r["weight"] for r in pool.status("robot")["revisions"]}
    assert weights.pop(pool.robot["digest"]) == 100
    assert not any(weights.values())
    assert set(seen.codes) == {200}
    assert pool_pods(pool) == before


def test_an_artifact_that_is_not_what_it_should_be_is_named_and_the_others_serve_on(pool: Stage):
    pool.patch("robot", artifact={**pool.twin, "digest": "sha256:" + "0" * 64})
    wait(lambda: "ArtifactInvalid" in pool.reasons("robot"), 60)
    draw(pool.url("robot"), "robot", PROMPT, seed=6)
    draw(pool.url("twin"), "twin", PROMPT, seed=6)
    # Back to an earlier revision, as status.revisions names it.
    pool.patch("robot", artifact=pool.robot)
    wait(lambda: not {"ArtifactInvalid", "AnalysisFailed"} & pool.reasons("robot"), 60)
    pool.ready("robot", 60)


def test_gateways_are_replaced_and_no_request_is_lost(pool: Stage):
    gateway = f"deployment/{RELEASE}-gateway"
    with traffic(pool.url("twin"), "twin") as seen:
        wait(lambda: len(seen.codes) > 3)
        pool.cluster.kube.kubectl("rollout", "restart", "-n", NAMESPACE, gateway)
        pool.cluster.kube.kubectl("rollout", "status", "-n", NAMESPACE, gateway, "--timeout=120s")
        before = len(seen.codes)
        wait(lambda: len(seen.codes) > before + 3)
    assert set(seen.codes) == {200}


def replicas(stage: Stage, name: str) -> int:
    """What the model's Deployment wants, or still has."""
    deployment = stage.cluster.get("deployment", names.endpoint(name)) or {"spec": {"replicas": -1}}
    return max(deployment["spec"]["replicas"], deployment.get("status", {}).get("replicas", 0))


async def burst(url: str, name: str) -> list[int]:
    """Statuses of so many requests at once."""
    limits = httpx.Limits(max_connections=BURST)
    async with httpx.AsyncClient(timeout=240, limits=limits) as client:
        bodies = [{"model": name, "prompt": PROMPT, "steps": 4, "seed": seed} for seed in range(BURST)]
        answers = await asyncio.gather(*(client.post(f"{url}/v1/images/generations", json=body) for body in bodies))
    return [answer.status_code for answer in answers]


def test_a_burst_wakes_a_sleeping_subject_and_every_request_is_answered(sleeper: Stage):
    wait(lambda: replicas(sleeper, "sleeper") == 0, 120)
    begun = time.monotonic()
    codes = asyncio.run(burst(sleeper.url("sleeper"), "sleeper"))
    print(f"{BURST} requests from zero in {time.monotonic() - begun:.1f} s")
    assert codes == [200] * BURST


def test_who_was_woken_started_with_what_was_kept(sleeper: Stage):
    """Weights of artifact and base are older than the pod."""
    pods = sleeper.cluster.list("pods", "-l", f"{names.LABEL_MODEL}=sleeper", "--field-selector=status.phase=Running")
    oldest = min(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])
    script = (
        "from pathlib import Path; "
        f"found = [(p.parts[4], p.stat().st_mtime) for p in Path({names.CACHE_DIR!r}).rglob('*.safetensors')]; "
        "import json; print(json.dumps(found))"
    )
    found = json.loads(sleeper.cluster.kubectl("exec", oldest["metadata"]["name"], "--", "python", "-c", script))
    begun = clock.parse(oldest["metadata"]["creationTimestamp"])
    assert begun is not None
    assert {kind for kind, _ in found} == {"models", "bases"}
    assert max(written for _, written in found) < begun.timestamp()


def test_its_autoscaler_saw_the_requests_in_flight(sleeper: Stage):
    """Right after the burst: what the external metrics API says is what the gateway counted."""
    name, space = names.endpoint("sleeper"), sleeper.cluster.namespace
    (metric,) = sleeper.cluster.get("hpa", name)["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == "dreambooth_in_flight_requests"
    path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{space}/dreambooth_in_flight_requests"
    selector = quote("model=sleeper")
    (item,) = json.loads(sleeper.cluster.kube.kubectl("get", "--raw", f"{path}?labelSelector={selector}"))["items"]
    assert item["metricName"] == "dreambooth_in_flight_requests"

    def rescaled() -> bool:
        events = sleeper.cluster.list("events", f"--field-selector=involvedObject.name={name}")
        told = [e["message"] for e in events if e["reason"] == "SuccessfulRescale"]
        return any("New size: 2" in message and "dreambooth_in_flight_requests" in message for message in told)

    wait(rescaled)


def test_it_goes_back_to_sleep(sleeper: Stage):
    wait(lambda: replicas(sleeper, "sleeper") == 0, 60)
    wait(lambda: sleeper.status("sleeper").get("phase") == "Idle")
