"""Carrying a decision out: what goes over the wire, and what each refusal of the API server leads to."""

import asyncio

import aiohttp
import pytest
from kubernetes.aio import client

from dreambooth_api import names
from dreambooth_operator.caches import Caches
from dreambooth_operator.cluster import METADATA_ONLY, ApiFault, Cluster
from dreambooth_operator.fence import Fence
from dreambooth_operator.queue import WorkQueue
from dreambooth_operator.reconcile import Reconciler
from tests.operator.refusing import JOB, reconciling


async def test_events_then_status_then_children(make, settings):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        await reconciler.reconcile(JOB)
    assert api.writes() == [
        ("POST", "events"),
        ("PATCH", "status"),
        ("POST", "jobs"),
    ]
    patches = [request for verb, _, request, _ in api.requests if verb == "PATCH"]
    for request in patches:
        assert request.content_type == "application/apply-patch+yaml"
        assert dict(request.query) == {"fieldManager": names.MANAGER, "force": "true"}
    status = next(body for _, path, _, body in api.requests if path.endswith("/status"))
    # On this very object: one that was made anew under the name is another.
    # In this very version, too.
    assert status["metadata"].items() >= {"name": "robot", "namespace": "team", "uid": "job-uid"}.items()


async def test_secrets_are_asked_for_without_their_content(make, settings):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        await reconciler.reconcile(JOB)
    accepts = [request.headers["Accept"] for verb, _, request, _ in api.requests if verb == "GET"]
    assert accepts
    assert set(accepts) == {METADATA_ONLY}


async def test_an_object_that_is_gone_is_nothing(settings):
    async with reconciling(settings) as (reconciler, api, _):
        await reconciler.reconcile(JOB)
    assert api.requests == []


async def test_of_what_was_just_written_nothing_is_written_or_asked_again(make, settings):
    """No watch has brought the status and the children back yet: the second run knows them all the same."""
    async with reconciling(settings, make.job(resourceVersion="0")) as (reconciler, api, _):
        await reconciler.reconcile(JOB)
        before = len(api.requests)
        await reconciler.reconcile(JOB)
    assert api.requests[before:] == []


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_what_may_pass_is_tried_again(make, settings, status):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        api.refuse("POST", "/team/jobs", status)
        with pytest.raises(ApiFault):
            await reconciler.reconcile(JOB)
        api.refusals.clear()
        await reconciler.reconcile(JOB)
    assert api.writes()[-1] == ("POST", "jobs")


@pytest.mark.parametrize("status", [404, 409])
async def test_a_job_that_was_deleted_meanwhile_is_no_fault(make, settings, status):
    async with reconciling(settings, make.job({"suspend": True})) as (reconciler, api, _):
        api.refuse("PATCH", "/status", status)
        await reconciler.reconcile(JOB)
    assert api.writes() == [("POST", "events"), ("PATCH", "status")]


async def test_an_event_that_was_told_already_is_no_fault(make, settings):
    async with reconciling(settings, make.job({"suspend": True})) as (reconciler, api, _):
        api.refuse("POST", "/events", 409)
        await reconciler.reconcile(JOB)
    assert api.writes()[-1] == ("PATCH", "status")


async def test_an_api_server_that_is_away_is_a_fault_that_passes(make, settings):
    async with aiohttp.ClientSession() as session:
        fence, caches = Fence(), Caches()
        fence.open()
        caches.put(names.JOB_KIND, make.job())
        cluster = Cluster(client.ApiClient(client.Configuration(host="http://127.0.0.1:9")), fence)
        reconciler = Reconciler(cluster, caches, settings, WorkQueue(), session, lambda body: None)
        with pytest.raises(ApiFault) as fault:
            await reconciler.reconcile(JOB)
        assert fault.value.status == 0
        await cluster.close()


async def test_a_fault_of_one_object_is_tried_again_by_the_queue(make, settings):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        api.refuse("POST", "/team/jobs", 500)
        queue = WorkQueue()
        queue.add(JOB)
        worker = asyncio.create_task(queue.work(reconciler.reconcile))
        await asyncio.sleep(0.2)
        api.refusals.clear()
        await asyncio.sleep(0.8)
        worker.cancel()
    assert ("POST", "jobs") in api.writes()


async def test_what_was_decided_on_an_outdated_view_is_not_written(make, settings):
    """Another replica, or a user, was faster: neither the status nor a child of the old view goes out."""
    async with reconciling(settings, make.job(resourceVersion="7")) as (reconciler, api, _):
        api.refuse("PATCH", "/status", 409)
        await reconciler.reconcile(JOB)
    status = next(body for _, path, _, body in api.requests if path.endswith("/status"))
    assert status["metadata"]["resourceVersion"] == "7"
    assert api.writes() == [("POST", "events"), ("PATCH", "status")]


async def test_without_the_lease_nothing_is_written(make, settings):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        reconciler._cluster._fence.close()
        await reconciler.reconcile(JOB)
    assert api.writes() == []
