"""Plays Job controller, Deployment controller, kubelet and trainer: by patching statuses, so no node is needed."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from dreambooth_api import names
from tests.operator.stage.api import Api, ApiError

DIGEST = "sha256:" + "ab" * 32
INDEX = "batch.kubernetes.io/job-completion-index"
PREPARED = {
    "kind": "Prepared", "prior": {"uri": "s3://x/priors/1", "images": 3, "reused": 0},
    "datasetDigest": DIGEST, "baseDigest": DIGEST, "images": 4,
}  # fmt: skip
TRAINED = {
    "kind": "Trained",
    "progress": {"step": 100, "steps": 100, "percent": 100, "loss": "0.0100"},
    "artifact": {"uri": "s3://dreambooth/models/x", "digest": DIGEST, "bytes": 3},
    "scores": {"clipI": "0.900"},
}  # fmt: skip


def moment() -> str:
    """Now, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Driver:
    """Runs every Job to its good end, as fast as the API server takes it; `seconds`: how long pods run; without `nodes`
    pods are made and wait."""

    def __init__(self, api: Api, seconds: float = 0.0, nodes: bool = True) -> None:
        self._api, self._seconds, self._nodes = api, seconds, nodes
        # Jobs by (namespace, name) whose pods run until they are taken out of here; of some, rank 0's address and the
        # node of all their pods.
        self.held: set[tuple[str, str]] = set()
        self.addresses: dict[tuple[str, str], str] = {}
        self.hosts: dict[tuple[str, str], str] = {}
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # How many Jobs of a name were ever started, by (namespace, name).
        self.started: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def at_work(cls, api: Api, seconds: float = 0.0, nodes: bool = True) -> AsyncIterator["Driver"]:
        """A driver, until the block ends."""
        driver = cls(api, seconds, nodes)
        watches = [asyncio.create_task(driver._jobs()), asyncio.create_task(driver._deployments())]
        try:
            yield driver
        finally:
            for task in (*watches, *driver._tasks):
                task.cancel()
            await asyncio.gather(*watches, *driver._tasks, return_exceptions=True)

    async def _jobs(self) -> None:
        async for kind, job in self._api.events("jobs"):
            # What has begun is over, or another driver's.
            uid, begun = job["metadata"]["uid"], (job.get("status") or {}).get("startTime")
            if kind == "DELETED" or begun or job["spec"].get("suspend") or uid in self._busy:
                continue
            self._busy.add(uid)
            task = asyncio.create_task(self._run(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, job: dict[str, Any]) -> None:
        try:
            await self._play(job)
        except ApiError as e:
            # Deleted meanwhile: as a real controller would find.
            if e.status not in (404, 409):
                self.failures.append(f"{job['metadata']['name']}: {e}")

    async def _play(self, job: dict[str, Any]) -> None:
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        self.started[namespace, name] += 1
        path = self._api.path("jobs", namespace, name, "status")
        begun = moment()
        await self._api.patch(path, {"status": {"startTime": begun, "active": job["spec"]["completions"]}})
        pods = [await self._pod(job, index) for index in range(job["spec"]["completions"])]
        if not self._nodes:
            return
        for pod in pods:
            await self._pod_status(
                pod, "Running", {"running": {"startedAt": begun}}, self.addresses.get((namespace, name))
            )
        await asyncio.sleep(self._seconds)
        while (namespace, name) in self.held:
            await asyncio.sleep(0.1)
        component = job["spec"]["template"]["metadata"]["labels"][names.LABEL_COMPONENT]
        said = PREPARED if component == names.COMPONENT_PREPARE else TRAINED
        for index, pod in enumerate(pods):
            message = json.dumps(said) if index == 0 else ""
            end = {"exitCode": 0, "reason": "Completed", "message": message, "startedAt": begun, "finishedAt": moment()}
            await self._pod_status(pod, "Succeeded", {"terminated": end})
        await self._api.patch(path, {"status": _complete(job, begun)})

    async def _pod(self, job: dict[str, Any], index: int) -> dict[str, Any]:
        metadata, template = job["metadata"], job["spec"]["template"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"],
                 "controller": True}  # fmt: skip
        body = {
            "metadata": {
                "name": f"{metadata['name']}-{index}-{metadata['uid'][:5]}",
                "labels": template["metadata"]["labels"],
                "annotations": {**template["metadata"].get("annotations", {}), INDEX: str(index)},
                "ownerReferences": [owner],
            },
            "spec": {"nodeName": self.hosts.get((metadata["namespace"], metadata["name"]), ""),
                     "restartPolicy": "Never", "containers": [{"name": c["name"], "image": c["image"]}
                                    for c in template["spec"]["containers"]]},
        }  # fmt: skip
        return await self._api.create(self._api.path("pods", metadata["namespace"]), body)

    async def _pod_status(
        self, pod: dict[str, Any], phase: str, state: dict[str, Any], address: str | None = None
    ) -> None:
        (container,) = pod["spec"]["containers"]
        status = {
            "phase": phase,
            **({"podIP": address, "podIPs": [{"ip": address}]} if address else {}),
            "containerStatuses": [{
                "name": container["name"], "image": container["image"], "imageID": "", "ready": False,
                "restartCount": 0, "state": {"running": None, "waiting": None, **state},
            }],
        }  # fmt: skip
        path = self._api.path("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], "status")
        await self._api.patch(path, {"status": status})

    async def _deployments(self) -> None:
        async for kind, found in self._api.events("deployments"):
            generation, status = found["metadata"]["generation"], found.get("status") or {}
            if kind == "DELETED" or status.get("observedGeneration") == generation:
                continue
            path = self._api.path("deployments", found["metadata"]["namespace"], found["metadata"]["name"], "status")
            counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
            with contextlib.suppress(ApiError):
                await self._api.patch(path, {"status": {"observedGeneration": generation, **counts}})


def _complete(job: dict[str, Any], begun: str) -> dict[str, Any]:
    ended, completions = moment(), job["spec"]["completions"]
    conditions = [
        {"type": kind, "status": "True", "reason": "CompletionsReached", "lastTransitionTime": ended,
         "lastProbeTime": ended, "message": ""} for kind in ("SuccessCriteriaMet", "Complete")
    ]  # fmt: skip
    indexes = {"completedIndexes": "0" if completions == 1 else f"0-{completions - 1}"}
    return {
        "startTime": begun, "completionTime": ended, "active": 0, "succeeded": completions, "conditions": conditions,
        **(indexes if job["spec"].get("completionMode") == "Indexed" else {}),
    }  # fmt: skip
