"""What must be in the namespace before anything is started, and whether it is there."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cachetools import TTLCache

from dreambooth_api import names
from dreambooth_api.job import DreamBoothJobSpec
from dreambooth_api.parse import InvalidResource, parse_pool
from dreambooth_api.reasons import Reason
from dreambooth_api.uris import parse_uri
from dreambooth_operator import job_results
from dreambooth_operator.cluster import Cluster
from dreambooth_operator.manifests_job import input_claims
from dreambooth_operator.views import Body, JobView, Problem

# What was there so lately is not asked for again, seconds (all jobs of a namespace need the same Secret); and how many
# names are remembered.
RECENT, MOST = 10.0, 10_000


class Need(NamedTuple):
    """An object that pods mount."""

    kind: str
    name: str
    reason: Reason
    purpose: str


STORE = Need("Secret", names.STORE_SECRET, Reason.SECRET_NOT_FOUND, "it says where the store is, and its keys")


def needs(spec: DreamBoothJobSpec) -> Iterator[Need]:
    """What a job needs; pods that mount what is not there would hang without a word."""
    yield STORE
    if spec.base_model.secret_ref:
        purpose = "baseModel.secretRef names it"
        yield Need("Secret", spec.base_model.secret_ref.name, Reason.SECRET_NOT_FOUND, purpose)
    images = parse_uri(spec.subject.images.uri)
    if images.scheme == "configMap":
        yield Need("ConfigMap", images.authority, Reason.DATASET_NOT_FOUND, "subject.images.uri names it")
    for claim in sorted(input_claims(spec)):
        of_images = images.scheme == "pvc" and images.authority == claim
        reason = Reason.DATASET_NOT_FOUND if of_images else Reason.BASE_MODEL_NOT_FOUND
        yield Need("PersistentVolumeClaim", claim, reason, "a pvc:// URI of the job names it")


def pool_needs(body: Body) -> Iterator[Need]:
    """What a pool needs. Of a spec that is not understood, nothing is asked for."""
    yield STORE
    try:
        base = parse_pool(body).spec.base_model
    except InvalidResource:
        return
    if base.secret_ref:
        yield Need("Secret", base.secret_ref.name, Reason.SECRET_NOT_FOUND, "baseModel.secretRef names it")
    found = parse_uri(base.uri)
    if found.scheme == "pvc":
        purpose = "spec.baseModel.uri names it"
        yield Need("PersistentVolumeClaim", found.authority, Reason.BASE_MODEL_NOT_FOUND, purpose)


class Inputs:
    """Asks the API server for them. That one is there is remembered for a moment; that it is not, never: it may be made
    at any time."""

    def __init__(self, cluster: Cluster, timer: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._there: TTLCache[tuple[str, str, str], bool] = TTLCache(MOST, RECENT, timer)

    async def missing(self, namespace: str, wanted: Iterator[Need]) -> Problem | None:
        """The first thing that is not there. Raises ApiFault."""
        for need in wanted:
            key = (need.kind, namespace, need.name)
            if key in self._there:
                continue
            if await self._cluster.find(*key) is None:
                message = f"there is no {need.kind} {need.name} in the namespace {namespace}: {need.purpose}"
                return Problem(need.reason, message)
            self._there[key] = True
        return None


async def complaint(cluster: Cluster, view: JobView) -> str | None:
    """Why a Job's pods are not let be made: the Job controller says it in events only. Raises ApiFault."""
    job = job_results.short(view)
    if job is None:
        return None
    told = await cluster.complaints(view.namespace, job["metadata"]["uid"])
    refused = [event for event in told if event.get("reason") == "FailedCreate"]
    newest = max(refused, key=lambda event: event.get("lastTimestamp") or "", default=None)
    return newest.get("message") if newest else None
