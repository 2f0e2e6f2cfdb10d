"""Jobs for the stage, the operator on it, and what is left in a namespace when all is done."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client

from dreambooth_api import names
from dreambooth_operator.app import Operator
from dreambooth_operator.cluster import Cluster
from dreambooth_operator.fence import Fence
from dreambooth_operator.settings import Settings
from tests.operator.stage.api import Api
from tests.operator.stage.apiserver import TOKENS

IMAGES = {"DREAMBOOTH_TRAINER_IMAGE": "dreambooth/trainer:1", "DREAMBOOTH_SERVER_IMAGE": "dreambooth/server:1"}
CHILDREN = ("jobs", "services", "deployments", "horizontalpodautoscalers", "poddisruptionbudgets")


def job(name: str, **spec: Any) -> dict[str, Any]:
    """A job of two pods that publishes under its own name."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.JOB_KIND,
        "metadata": {"name": name},
        "spec": {
            "baseModel": {"uri": "s3://dreambooth/examples/base"},
            "subject": {"images": {"uri": "s3://dreambooth/examples/robot"}, "className": "robot"},
            "topology": {"nodes": 2, "gpusPerNode": 0},
            "publish": {"name": name},
            **spec,
        },
    }


@contextlib.asynccontextmanager
async def operating(url: str, *namespaces: str, user: str = "operator", **settings: Any) -> AsyncIterator[Operator]:
    """An operator in this process; at the end it is stopped in the middle of whatever it does."""
    found = Settings("dreambooth/trainer:1", "dreambooth/server:1", namespaces=namespaces, **settings)
    fence = Fence()
    configuration = client.Configuration(host=url)
    configuration.verify_ssl = False
    configuration.connection_pool_maxsize = 0
    configuration.api_key = {"BearerToken": f"Bearer {TOKENS[user]}"}
    cluster = Cluster(client.ApiClient(configuration), fence)
    async with aiohttp.ClientSession() as session:
        operator = Operator(found, cluster, fence, session)
        for reflector in operator.reflectors:
            # Tests need not wait for half a minute of silence.
            reflector.silence = 4.0
        task = asyncio.create_task(operator.run())
        try:
            yield operator
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await cluster.close()


async def spawn(kubeconfig: Path, log: Path, **env: str) -> asyncio.subprocess.Process:
    """The operator's own process."""
    environment = {**os.environ, **IMAGES, "KUBECONFIG": str(kubeconfig), **env}
    with log.open("ab") as out:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dreambooth_operator", env=environment, stdout=out, stderr=out
        )


async def finished(api: Api, namespace: str, name: str, seconds: float = 60.0) -> dict[str, Any]:
    """Wait for a job's end and its model's readiness. Raises TimeoutError with how far it came."""
    deadline = time.monotonic() + seconds
    while True:
        job = await api.get("dreamboothjobs", namespace, name) or {}
        model = await api.get("personalizedmodels", namespace, name) or {}
        phases = [(found.get("status") or {}).get("phase") for found in (job, model)]
        if phases == ["Succeeded", "Ready"] or phases[0] == "Failed":
            return job
        if time.monotonic() > deadline:
            raise TimeoutError(f"{namespace}/{name}: job and model are still {phases}")
        await asyncio.sleep(0.1)


async def final_state(api: Api, namespace: str) -> dict[str, Any]:
    """All that is in a namespace, without what differs from run to run: uids, versions, times. An object's owner is
    said to be `alive` or an orphan's."""
    own = {plural: await api.list(plural, namespace) for plural in ("dreamboothjobs", "personalizedmodels")}
    alive = {body["metadata"]["uid"] for bodies in own.values() for body in bodies}
    state: dict[str, Any] = {}
    for plural, bodies in own.items():
        for body in bodies:
            state[f"{plural}/{body['metadata']['name']}"] = {"spec": body["spec"], "status": _timeless(body["status"])}
    for plural in CHILDREN:
        for body in await api.list(plural, namespace):
            metadata = body["metadata"]
            if metadata["name"] == "kube-root-ca.crt":
                continue
            owners = [owner["uid"] in alive for owner in metadata.get("ownerReferences", [])]
            stamp = metadata.get("annotations", {}).get(names.ANNOTATION_SPEC_DIGEST)
            suspended = (body.get("spec") or {}).get("suspend")
            state[f"{plural}/{metadata['name']}"] = {"owned": owners == [True], "made": bool(stamp), "off": suspended}
    # Which steps on the way were told depends on when somebody looked: what must be told is trouble, and the end.
    # The API server tells of itself as well, when its own loops are late.
    told = [e for e in await api.list("events", namespace) if e["reportingComponent"] == names.MANAGER]
    events = {
        (e["involvedObject"]["kind"], e["reason"]) for e in told if e["type"] == "Warning" or e["reason"] == "Succeeded"
    }
    state["events"] = sorted(events)
    return state


def _timeless(found: Any) -> Any:
    if isinstance(found, dict):
        return {k: _timeless(v) for k, v in found.items() if k not in ("lastTransitionTime", "startTime",
                                                                       "completionTime", "time")}  # fmt: skip
    return [_timeless(item) for item in found] if isinstance(found, list) else found


def without_namespace(state: dict[str, Any], namespace: str) -> dict[str, Any]:
    """A state without its namespace's name."""
    return json.loads(json.dumps(state).replace(f".{namespace}.svc", ".NAMESPACE.svc"))


async def ready(api: Api, port: int, seconds: float = 60.0) -> None:
    """Wait until a replica's caches are warm. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with api.session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
