"""The one file that talks to the API server."""

import json
from typing import Any, NamedTuple

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError

from dreambooth_api import names
from dreambooth_operator import metrics
from dreambooth_operator.views import Body

TIMEOUT = 10.0
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class Resource(NamedTuple):
    """Where a kind lives in the API."""

    api_version: str
    plural: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """The URL's path."""
        root = "/api" if "/" not in self.api_version else "/apis"
        parts = [root, self.api_version, "namespaces", namespace, self.plural, name, subresource]
        return "/".join(part for part in parts if part)


RESOURCES = {
    names.JOB_KIND: Resource(names.API_VERSION, names.JOB_PLURAL),
    names.MODEL_KIND: Resource(names.API_VERSION, names.MODEL_PLURAL),
    "Job": Resource("batch/v1", "jobs"),
    "Deployment": Resource("apps/v1", "deployments"),
    "HorizontalPodAutoscaler": Resource("autoscaling/v2", "horizontalpodautoscalers"),
    "Service": Resource("v1", "services"),
    "ConfigMap": Resource("v1", "configmaps"),
    "Secret": Resource("v1", "secrets"),
    "PersistentVolumeClaim": Resource("v1", "persistentvolumeclaims"),
    "Event": Resource("v1", "events"),
}


class ApiFault(Exception):
    """The API server said no; `status` is the HTTP status, 0 when it could not be reached."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status, self.message = status, message


async def connect() -> "Cluster":
    """A client with the pod's service account, else with KUBECONFIG."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    return Cluster(client.ApiClient(configuration))


class Cluster:
    """Reads by name and writes; lists and watches are the informers' (kopf's)."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        # The paths are known: no discovery, and no permission for it.
        self._dynamic = DynamicClient(api)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def find(self, kind: str, namespace: str, name: str) -> Body | None:
        """An object's metadata (its content never leaves the API server), or None. Raises ApiFault."""
        try:
            path = RESOURCES[kind].path(namespace, name)
            return await self._call("get", path, header_params={"Accept": METADATA_ONLY})
        except ApiFault as e:
            if e.status == 404:
                return None
            raise

    async def apply(self, manifest: Body) -> Body:
        """Server-side apply; returns the live object. Raises ApiFault."""
        metadata = manifest["metadata"]
        return await self._apply(RESOURCES[manifest["kind"]].path(metadata["namespace"], metadata["name"]), manifest)

    async def apply_status(self, kind: str, body: Body, status: Body) -> Body:
        """Server-side apply of a whole status, on this very object (its uid). Raises ApiFault."""
        metadata = {key: body["metadata"][key] for key in ("name", "namespace", "uid")}
        manifest = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "status": status}
        return await self._apply(RESOURCES[kind].path(metadata["namespace"], metadata["name"], "status"), manifest)

    async def suspend(self, namespace: str, job: str, value: bool) -> None:
        """Suspend or resume a Job; one that is gone is no fault. Raises ApiFault."""
        path = RESOURCES["Job"].path(namespace, job)
        content_type = "application/merge-patch+json"
        await self._unless_gone("patch", path, {"spec": {"suspend": value}}, content_type, field_manager=names.MANAGER)

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete this very object (its uid) and, in the background, what it owns. Raises ApiFault."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        await self._unless_gone("delete", RESOURCES[kind].path(namespace, name), options, "application/json")

    async def tell(self, event: Body) -> None:
        """Post an event; one of its name was told already. Raises ApiFault."""
        try:
            await self._call("post", RESOURCES["Event"].path(event["metadata"]["namespace"]), body=event)
        except ApiFault as e:
            if e.status != 409:
                raise

    async def _apply(self, path: str, manifest: Body) -> Body:
        return await self._call(
            "patch",
            path,
            body=manifest,
            content_type="application/apply-patch+yaml",
            field_manager=names.MANAGER,
            force_conflicts=True,
        )

    async def _unless_gone(self, verb: str, path: str, body: Body, content_type: str, **options: Any) -> None:
        try:
            await self._call(verb, path, body=body, content_type=content_type, **options)
        except ApiFault as e:
            # 409: another object has the name by now.
            if e.status not in (404, 409):
                raise

    async def _call(self, verb: str, path: str, **options: Any) -> Body:
        metrics.API_REQUESTS.labels(verb).inc()
        try:
            answer = await self._dynamic.request(
                verb, path, serialize=False, _request_timeout=TIMEOUT, query_params=[], **options
            )
            return await answer.json()
        except (ApiException, DynamicApiError) as e:
            raise ApiFault(e.status or 0, _said(e)) from e
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise ApiFault(0, f"the API server was not reached: {e!r}") from e


def _said(error: ApiException | DynamicApiError) -> str:
    """The API server's own sentence."""
    try:
        return json.loads(error.body or "")["message"]
    except (TypeError, ValueError, KeyError):
        return str(error.reason or error)
