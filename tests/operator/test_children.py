"""How children are made: once, for an owner that is as it was looked at, and never over somebody else's object."""

import pytest

from dreambooth_api import names
from dreambooth_operator.cluster import ApiFault
from tests.operator.refusing import JOB, MODEL, condition, reconciling


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
    async with reconciling(settings, make.job(resourceVersion="0")) as (reconciler, api, caches):
        await reconciler.reconcile(JOB)
        asked = [path.rsplit("/", 1)[-1] for verb, path, *_ in api.requests if verb == "GET"]
        assert asked == [names.STORE_SECRET]
        del api.objects["/apis/batch/v1/namespaces/team/jobs/robot-prepare"]
        caches.drop("Job", "team", "robot-prepare")
        await reconciler.reconcile(JOB)
    asked = [path.rsplit("/", 1)[-1] for verb, path, *_ in api.requests if verb == "GET"]
    assert asked == [names.STORE_SECRET, "robot"]


async def test_somebody_elses_object_is_not_taken_over(make, settings):
    async with reconciling(settings, make.job()) as (reconciler, api, _):
        path = "/apis/batch/v1/namespaces/team/jobs/robot-prepare"
        api.objects[path] = {"metadata": {"name": "robot-prepare"}}
        await reconciler.reconcile(JOB)
    assert ("PATCH", "robot-prepare") not in api.writes()
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


async def test_two_that_want_a_child_differently_do_not_race(make, settings):
    """Somebody undoes at once what was applied: it is not answered at once."""
    async with reconciling(settings, make.model()) as (reconciler, api, caches):
        await reconciler.reconcile(MODEL)
        service = api.objects["/api/v1/namespaces/team/services/robot-endpoint"]
        undone = {**service, "kind": "Service", "spec": {**service["spec"], "ports": []}}
        undone["metadata"] = {**service["metadata"], "resourceVersion": "999"}
        caches.put("Service", undone)
        before, told = api.writes().count(("PATCH", "robot-endpoint")), len(api.requests)
        await reconciler.reconcile(MODEL)
        after = api.requests[told:]
        assert [path for verb, path, *_ in after if verb == "PATCH" and "/services/" in path] == []
    assert before == 4


async def test_no_job_is_started_for_an_object_that_changed(make, settings):
    async with reconciling(settings, make.job(resourceVersion="0")) as (reconciler, api, _):
        api.refuse("POST", "/team/jobs", 500)
        with pytest.raises(ApiFault):
            await reconciler.reconcile(JOB)
        api.refusals.clear()
        tried = len(api.requests)
        api.objects[f"/apis/{names.API_VERSION}/namespaces/team/dreamboothjobs/robot"]["metadata"][
            "resourceVersion"
        ] = "99"
        await reconciler.reconcile(JOB)
    assert [verb for verb, *_ in api.requests[tried:]] == ["GET"]
