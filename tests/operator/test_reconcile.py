"""Carrying a decision out: what goes over the wire, and what each refusal of the API server leads to.

The API server here is a small one over real HTTP, because a real one cannot be told to refuse; tests/cluster goes
through the real one.
"""

import asyncio
import contextlib
import json

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from dreambooth_api import names
from dreambooth_operator.caches import Caches
from dreambooth_operator.cluster import METADATA_ONLY, ApiFault, Cluster
from dreambooth_operator.fence import Fence
from dreambooth_operator.queue import WorkQueue
from dreambooth_operator.reconcile import Reconciler
from dreambooth_operator.views import Key

JOB = Key(names.JOB_KIND, "team", "robot")
MODEL = Key(names.MODEL_KIND, "team", "robot")


class ApiServer:
    """Keeps what is applied; refuses what it is told to."""

    def __init__(self):
        self.objects, self.requests, self.refusals = {}, [], {}

    def refuse(self, verb, part, status, message="no"):
        """Answer requests of `verb` whose path contains `part` with `status`."""
        self.refusals[verb, part] = (status, message)

    async def handle(self, request):
        body = json.loads(await request.text() or "null")
        self.requests.append((request.method, request.path, request, body))
        for (verb, part), (status, message) in self.refusals.items():
            if request.method == verb and part in request.path:
                return web.json_response({"kind": "Status", "message": message, "code": status}, status=status)
        if request.method == "GET" and request.path not in self.objects:
            return web.json_response({"message": "not found"}, status=404)
        if request.method == "POST" and not request.path.endswith("/events"):
            path = f"{request.path}/{body['metadata']['name']}"
            if path in self.objects:
                return web.json_response({"message": "exists"}, status=409)
            self.objects[path] = {**body, "metadata": {"uid": "u", "resourceVersion": "1", **body["metadata"]}}
            return web.json_response(self.objects[path], status=201)
        if request.method == "PATCH":
            name = request.path.removesuffix("/status")
            old = self.objects.get(name, {})
            live = {**old, **body, "metadata": {**old.get("metadata", {}), **body["metadata"]}}
            live["metadata"] = {"uid": "u", **live["metadata"], "resourceVersion": str(len(self.requests))}
            self.objects[name] = live
        return web.json_response(self.objects.get(request.path.removesuffix("/status"), body))

    def writes(self):
        """(verb, last part of the path) of everything but reads."""
        return [(verb, path.rsplit("/", 1)[-1]) for verb, path, *_ in self.requests if verb != "GET"]


@contextlib.asynccontextmanager
async def reconciling(settings, *bodies):
    """A reconciler over caches with `bodies`, and its API server with the store's Secret."""
    api = ApiServer()
    api.objects["/api/v1/namespaces/team/secrets/dreambooth-store"] = {"metadata": {"name": "dreambooth-store"}}
    for body in bodies:
        plural = names.JOB_PLURAL if body["kind"] == names.JOB_KIND else names.MODEL_PLURAL
        api.objects[f"/apis/{names.API_VERSION}/namespaces/team/{plural}/{body['metadata']['name']}"] = body
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    caches = Caches()
    for body in bodies:
        caches.put(body["kind"], body)
    queue, fence = WorkQueue(), Fence()
    fence.open()
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        cluster = Cluster(client.ApiClient(client.Configuration(host=str(server.make_url("")).rstrip("/"))), fence)
        try:
            yield Reconciler(cluster, caches, settings, queue, session), api, caches
        finally:
            await cluster.close()


def condition(api, kind="Failed", plural="dreamboothjobs"):
    """A condition of the status that was written last."""
    written = [body for _, path, _, body in api.requests if path.endswith(f"/{plural}/robot/status")][-1]
    return next((c["status"], c["reason"], c["message"]) for c in written["status"]["conditions"] if c["type"] == kind)


async def test_events_then_status_then_children(make, settings):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        await reconciler.reconcile(JOB)
    assert api.writes() == [
        ("POST", "events"),
        ("PATCH", "status"),
        ("POST", "configmaps"),
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


async def test_a_stale_cache_does_not_undo_what_was_written(make, settings):
    """The watch has not brought our own status back yet: the second run must know it all the same."""
    async with reconciling(settings, make.job(resourceVersion="0")) as (reconciler, api, _):
        await reconciler.reconcile(JOB)
        before = api.writes()
        await reconciler.reconcile(JOB)
    assert ("PATCH", "status") not in api.writes()[len(before) :]
    assert ("POST", "events") not in api.writes()[len(before) :]


async def test_a_job_that_the_cache_does_not_show_yet_is_not_applied_again(make, settings):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        owners = [{"uid": "job-uid"}]
        api.objects["/apis/batch/v1/namespaces/team/jobs/robot-prepare"] = {"metadata": {"ownerReferences": owners}}
        await reconciler.reconcile(JOB)
    assert ("PATCH", "robot-prepare") not in api.writes()


async def test_what_is_being_deleted_under_a_childs_name_is_waited_for(make, settings):
    """By the garbage collector, after an earlier job of the name, or of this job: the cache has not heard of it yet."""
    for owner in ({"uid": "job-uid"}, {"uid": "another", "kind": names.JOB_KIND, "name": "robot"}):
        async with reconciling(settings, make.job()) as (reconciler, api, _):
            metadata = {"ownerReferences": [owner], "deletionTimestamp": make.ago(1)}
            api.objects["/apis/batch/v1/namespaces/team/jobs/robot-prepare"] = {"metadata": metadata}
            await reconciler.reconcile(JOB)
        assert ("PATCH", "robot-prepare") not in api.writes()
        assert condition(api)[:2] == ("False", "Running")


async def test_an_owner_is_read_anew_where_no_status_was_just_written(make, settings):
    async with reconciling(settings, make.job(resourceVersion="0")) as (reconciler, api, _):
        await reconciler.reconcile(JOB)
        asked = [path.rsplit("/", 1)[-1] for verb, path, *_ in api.requests if verb == "GET"]
        assert asked == [names.STORE_SECRET]
        del api.objects["/apis/batch/v1/namespaces/team/jobs/robot-prepare"]
        await reconciler.reconcile(JOB)
    asked = [path.rsplit("/", 1)[-1] for verb, path, *_ in api.requests if verb == "GET"]
    assert "robot" in asked


async def test_somebody_elses_object_is_not_taken_over(make, settings):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        api.objects["/api/v1/namespaces/team/configmaps/robot-job"] = {"metadata": {"name": "robot-job"}}
        await reconciler.reconcile(JOB)
    assert ("PATCH", "robot-job") not in api.writes()
    assert condition(api)[:2] == ("True", "NameConflict")


@pytest.mark.parametrize(("status", "expected"), [(422, ("True", "InvalidSpec")), (403, ("False", "Unschedulable"))])
async def test_what_is_refused_is_told_with_the_servers_words(make, settings, status, expected):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        api.refuse("POST", "/team/jobs", status, "spec.template: too odd")
        await reconciler.reconcile(JOB)
    found = condition(api)
    assert found[:2] == expected
    assert "too odd" in found[2]


async def test_what_is_refused_again_is_not_told_again(make, settings):
    async with reconciling(settings, make.job(resourceVersion="0")) as (reconciler, api, _):
        api.refuse("POST", "/team/jobs", 403)
        await reconciler.reconcile(JOB)
        before = api.writes()
        await reconciler.reconcile(JOB)
        again = api.writes()[len(before) :]
        assert ("POST", "jobs") in again
        assert not {("PATCH", "status"), ("POST", "events")} & set(again)
        api.refusals.clear()
        await reconciler.reconcile(JOB)
    assert condition(api)[:2] == ("False", "Running")


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
        reconciler = Reconciler(cluster, caches, settings, WorkQueue(), session)
        with pytest.raises(ApiFault) as fault:
            await reconciler.reconcile(JOB)
        assert fault.value.status == 0
        await cluster.close()


async def test_two_that_want_a_child_differently_do_not_race(make, settings):
    """Somebody undoes at once what was applied: it is not answered at once."""
    async with reconciling(settings, make.model()) as (reconciler, api, caches):
        await reconciler.reconcile(MODEL)
        service = api.objects["/api/v1/namespaces/team/services/robot-endpoint"]
        undone = {**service, "kind": "Service", "spec": {**service["spec"], "ports": []}}
        undone["metadata"] = {**service["metadata"], "resourceVersion": "999"}
        caches.put("Service", undone)
        before = api.writes().count(("PATCH", "robot-endpoint"))
        await reconciler.reconcile(MODEL)
        after = api.requests[-6:]
        assert [path for verb, path, *_ in after if verb == "PATCH" and "/services/" in path] == []
    assert before == 3


async def test_a_fault_of_one_object_is_tried_again_by_the_queue(make, settings):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        api.refuse("POST", "/configmaps", 500)
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


async def test_no_job_is_started_for_an_object_that_changed(make, settings):
    async with reconciling(settings, make.job(resourceVersion="0")) as (reconciler, api, _):
        api.refuse("POST", "/configmaps", 500)
        with pytest.raises(ApiFault):
            await reconciler.reconcile(JOB)
        api.refusals.clear()
        api.objects[f"/apis/{names.API_VERSION}/namespaces/team/dreamboothjobs/robot"]["metadata"][
            "resourceVersion"
        ] = "99"
        await reconciler.reconcile(JOB)
    assert ("POST", "jobs") not in api.writes()


async def test_without_the_lease_nothing_is_written(make, settings):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        reconciler._cluster._fence.close()
        await reconciler.reconcile(JOB)
    assert api.writes() == []
