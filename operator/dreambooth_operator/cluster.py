"""The one file that talks to the API server."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError
from pydantic_core import SchemaValidator, from_json
from pydantic_core import core_schema as schema

from dreambooth_api import names
from dreambooth_operator import metrics
from dreambooth_operator.caches import METADATA
from dreambooth_operator.fence import Fence
from dreambooth_operator.views import Body

TIMEOUT = 10.0
# A lease is renewed several times within its duration, or not at all.
LEASE_TIMEOUT = 4.0
# How long the API server is asked to keep a watch open, and how long it may take to begin one, seconds.
WATCH_SECONDS = 600
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class Resource(NamedTuple):
    """Where a kind lives in the API."""

    api_version: str
    plural: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """The URL's path; without a namespace, that of all. A name is one segment of it, whatever is in it."""
        root = "/api" if "/" not in self.api_version else "/apis"
        place = ("namespaces", namespace) if namespace else ()
        parts = [root, self.api_version, *place, self.plural, quote(name, safe=""), subresource]
        return "/".join(part for part in parts if part)


RESOURCES = {
    names.JOB_KIND: Resource(names.API_VERSION, names.JOB_PLURAL),
    names.MODEL_KIND: Resource(names.API_VERSION, names.MODEL_PLURAL),
    names.POOL_KIND: Resource(names.API_VERSION, names.POOL_PLURAL),
    "Job": Resource("batch/v1", "jobs"),
    "Deployment": Resource("apps/v1", "deployments"),
    "HorizontalPodAutoscaler": Resource("autoscaling/v2", "horizontalpodautoscalers"),
    "PodDisruptionBudget": Resource("policy/v1", "poddisruptionbudgets"),
    "Service": Resource("v1", "services"),
    "ConfigMap": Resource("v1", "configmaps"),
    "Secret": Resource("v1", "secrets"),
    "PersistentVolumeClaim": Resource("v1", "persistentvolumeclaims"),
    "Event": Resource("v1", "events"),
    "Pod": Resource("v1", "pods"),
    "Lease": Resource("coordination.k8s.io/v1", "leases"),
}


def _only(fields: Mapping[str, schema.CoreSchema]) -> schema.CoreSchema:
    """JSON objects, without any but these fields."""
    return schema.typed_dict_schema({k: schema.typed_dict_field(v, required=False) for k, v in fields.items()})


def _anything(*fields: str) -> dict[str, schema.CoreSchema]:
    return dict.fromkeys(fields, schema.any_schema())


# Of the objects of a list only what is read is made into Python's.
ITEM = _only(_anything("apiVersion", "kind", "spec", "status") | {"metadata": _only(_anything(*METADATA))})
PAGE = SchemaValidator(_only(_anything("metadata") | {"items": schema.list_schema(ITEM)}))


class ApiFault(Exception):
    """The API server said no; `status` is the HTTP status, 0 when it could not be reached; `retry_after`: how long it
    asked to be left alone, seconds."""

    def __init__(self, status: int, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status, self.message, self.retry_after = status, message, retry_after


async def connect(fence: Fence) -> "Cluster":
    """A client with the pod's service account, else with KUBECONFIG; it writes as the fence allows."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    # Every watch holds a connection: with many namespaces a limit would leave none for the rest.
    configuration.connection_pool_maxsize = 0
    # aiohttp would ask the environment anew, in a thread, at every request, which is half of its CPU time.
    configuration.client_session_kwargs = {"trust_env": False}
    configuration.proxy = configuration.proxy or _proxy(configuration.host)
    return Cluster(client.ApiClient(configuration), fence)


class Cluster:
    """Lists and watches for the reflectors, reads by name, and writes."""

    def __init__(self, api: client.ApiClient, fence: Fence) -> None:
        self._api, self._fence = api, fence
        # The paths are known: no discovery, and no permission for it.
        self._dynamic = DynamicClient(api)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def list_page(self, kind: str, namespace: str, selector: str, limit: int, token: str) -> Body:
        """A page of a list, of all namespaces if `namespace` is empty. Raises ApiFault."""
        query = [("limit", str(limit))] + ([("continue", token)] if token else [])
        query += [("labelSelector", selector)] if selector else []
        path = RESOURCES[kind].path(namespace)
        return await self._call("get", path, "list", decode=PAGE.validate_json, query_params=query)

    async def watch(
        self, kind: str, namespace: str, selector: str, version: str, silence: float
    ) -> AsyncGenerator[Body | None]:
        """Events after `version`, None once at its begin; ends when nothing is heard for `silence` seconds, or when the
        server ends it. Raises ApiFault."""
        query = [("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", version)]
        query += [("timeoutSeconds", str(WATCH_SECONDS))] + ([("labelSelector", selector)] if selector else [])
        # No limit for the whole: a watch lasts; the pause between two lines is limited below.
        timeout = aiohttp.ClientTimeout(total=None, connect=TIMEOUT, sock_read=silence)
        path = RESOURCES[kind].path(namespace)
        answer = await self._answer("get", path, "watch", timeout, query_params=query)
        try:
            yield None
            async for line in answer.content:
                yield from_json(line)
        except TimeoutError:
            return
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise ApiFault(0, f"the watch broke off: {e!r}") from e
        finally:
            answer.close()

    async def read_lease(self, namespace: str, name: str) -> Body | None:
        """A Lease, or None. Raises ApiFault."""
        try:
            return await self._call("get", RESOURCES["Lease"].path(namespace, name), "get", LEASE_TIMEOUT)
        except ApiFault as e:
            if e.status == 404:
                return None
            raise

    async def write_lease(self, lease: Body) -> Body:
        """Make a Lease, or replace the version that it names; the fence does not guard what opens it. Raises ApiFault,
        409 when it is another version by now."""
        metadata, resource = lease["metadata"], RESOURCES["Lease"]
        if "resourceVersion" in metadata:
            path = resource.path(metadata["namespace"], metadata["name"])
            return await self._call("put", path, "update", LEASE_TIMEOUT, body=lease)
        return await self._call("post", resource.path(metadata["namespace"]), "create", LEASE_TIMEOUT, body=lease)

    async def find(self, kind: str, namespace: str, name: str) -> Body | None:
        """An object's metadata (its content never leaves the API server), or None. Raises ApiFault."""
        if name in (".", ".."):
            # No object is called so, and in a path they would mean another one.
            return None
        try:
            path = RESOURCES[kind].path(namespace, name)
            return await self._call("get", path, "get", header_params={"Accept": METADATA_ONLY})
        except ApiFault as e:
            if e.status == 404:
                return None
            raise

    async def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        """What is in a Secret, in base64, or None: only of one that a model names for its API keys. Raises ApiFault."""
        if name in (".", ".."):
            return None
        try:
            return (await self._call("get", RESOURCES["Secret"].path(namespace, name), "get")).get("data") or {}
        except ApiFault as e:
            if e.status == 404:
                return None
            raise

    async def create(self, manifest: Body) -> Body:
        """Make an object; returns it as it is now. Raises ApiFault, 409 when the name is taken."""
        path = RESOURCES[manifest["kind"]].path(manifest["metadata"]["namespace"])
        # An apply refuses fields that it does not know; a create does so only when told to.
        strictly = [("fieldValidation", "Strict")]
        return await self._write(
            "post", path, "create", body=manifest, field_manager=names.MANAGER, query_params=strictly
        )

    async def apply(self, manifest: Body) -> Body:
        """Server-side apply; returns the live object. Raises ApiFault."""
        metadata = manifest["metadata"]
        return await self._apply(RESOURCES[manifest["kind"]].path(metadata["namespace"], metadata["name"]), manifest)

    async def apply_status(self, kind: str, body: Body, status: Body) -> Body:
        """Server-side apply of a whole status, on this very object (its uid) in this very version: what was decided on
        an older one must not be written over a newer one. Raises ApiFault, 409 when it is another by now."""
        keys = ("name", "namespace", "uid", "resourceVersion")
        metadata = {key: body["metadata"][key] for key in keys if body["metadata"].get(key)}
        manifest = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "status": status}
        return await self._apply(RESOURCES[kind].path(metadata["namespace"], metadata["name"], "status"), manifest)

    async def suspend(self, namespace: str, job: str, value: bool) -> None:
        """Suspend or resume a Job; one that is gone is no fault. Raises ApiFault."""
        path = RESOURCES["Job"].path(namespace, job)
        content_type = "application/merge-patch+json"
        mark = {"annotations": {names.ANNOTATION_SUSPENDED: "true" if value else None}}
        body = {"metadata": mark, "spec": {"suspend": value}}
        await self._unless_gone("patch", path, body, content_type, field_manager=names.MANAGER)

    async def scale(self, namespace: str, deployment: str, replicas: int) -> None:
        """Set a Deployment's replicas, which no apply names; one that is gone is no fault. Raises ApiFault."""
        path = RESOURCES["Deployment"].path(namespace, deployment, "scale")
        body = {"spec": {"replicas": replicas}}
        await self._unless_gone("patch", path, body, "application/merge-patch+json", field_manager=names.MANAGER)

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete this very object (its uid) and what it owns: of a Job, which is only gone once its pods are, so that
        its successor's never run beside them. Raises ApiFault."""
        policy = "Foreground" if kind == "Job" else "Background"
        options = {"propagationPolicy": policy, "preconditions": {"uid": uid}}
        await self._unless_gone("delete", RESOURCES[kind].path(namespace, name), options, "application/json")

    async def complaints(self, namespace: str, uid: str) -> list[Body]:
        """Warnings that were told of an object; the newest fifty of them. Raises ApiFault."""
        query = [("fieldSelector", f"involvedObject.uid={uid},type=Warning"), ("limit", "50")]
        path = RESOURCES["Event"].path(namespace)
        return (await self._call("get", path, "list", query_params=query))["items"]

    async def tell(self, event: Body) -> None:
        """Post an event; one of its name was told already. Raises ApiFault."""
        try:
            path = RESOURCES["Event"].path(event["metadata"]["namespace"])
            await self._write("post", path, "create", body=event)
        except ApiFault as e:
            if e.status != 409:
                raise

    async def _apply(self, path: str, manifest: Body) -> Body:
        return await self._write(
            "patch",
            path,
            "apply",
            body=manifest,
            content_type="application/apply-patch+yaml",
            field_manager=names.MANAGER,
            force_conflicts=True,
        )

    async def _unless_gone(self, verb: str, path: str, body: Body, content_type: str, **options: Any) -> None:
        try:
            await self._write(verb, path, verb, body=body, content_type=content_type, **options)
        except ApiFault as e:
            # 409: another object has the name by now.
            if e.status not in (404, 409):
                raise

    async def _write(self, method: str, path: str, verb: str, **options: Any) -> Body:
        """A write, over before the lease may be another's. Raises NotLeading, ApiFault."""
        return await self._call(method, path, verb, self._fence.budget(TIMEOUT), **options)

    async def _call(
        self,
        method: str,
        path: str,
        verb: str,
        timeout: float = TIMEOUT,
        decode: Callable[[bytes], Any] = from_json,
        **options: Any,
    ) -> Body:
        try:
            # Over all of it: aiohttp's own limit begins anew where a body is read late.
            async with asyncio.timeout(timeout):
                answer = await self._answer(method, path, verb, timeout, **options)
                return decode(await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as e:
            raise ApiFault(0, f"the API server's answer broke off: {e!r}") from e

    async def _answer(self, method: str, path: str, verb: str, timeout: Any, **options: Any) -> aiohttp.ClientResponse:
        metrics.API_REQUESTS.labels(verb).inc()
        options = {"query_params": [], **options}
        try:
            return await self._dynamic.request(method, path, serialize=False, _request_timeout=timeout, **options)
        except (ApiException, DynamicApiError) as e:
            raise ApiFault(e.status or 0, _said(e), _retry_after(e)) from e
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise ApiFault(0, f"the API server was not reached: {e!r}") from e


def _proxy(host: str) -> str | None:
    """The environment's proxy (HTTPS_PROXY, NO_PROXY) on the way to a URL."""
    url = urlsplit(host)
    return None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)


def _said(error: ApiException | DynamicApiError) -> str:
    """The API server's own sentence."""
    try:
        return from_json(error.body or "")["message"]
    except (TypeError, ValueError, KeyError):
        return str(error.reason or error)


def _retry_after(error: ApiException | DynamicApiError) -> float:
    """The seconds that a Retry-After asks for; at most a minute, whatever it says."""
    try:
        return min(60.0, max(0.0, float((error.headers or {}).get("Retry-After", 0))))
    except (TypeError, ValueError):
        return 0.0
