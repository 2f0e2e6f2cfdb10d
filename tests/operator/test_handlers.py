"""Which keys an event puts into the queue, and what is kept of it."""

import pytest

from dreambooth_api import names
from dreambooth_operator.caches import Caches
from dreambooth_operator.handlers import OWNERS, Handlers
from dreambooth_operator.views import Key

JOB = Key(names.JOB_KIND, "team", "robot")


@pytest.fixture
def wired():
    """Handlers, their caches, the keys that they added, and the uids that they forgot."""
    added, forgotten, caches = [], [], Caches()
    return Handlers(caches, lambda key, after=0.0: added.append(key), forgotten.append), caches, added, forgotten


def test_a_job_and_the_models_that_look_at_it_are_reconciled(wired, make):
    handlers, caches, added, forgotten = wired
    caches.put(names.MODEL_KIND, make.model({"jobRef": {"name": "robot"}}))
    handlers.changed(names.JOB_KIND, make.job())
    assert added == [JOB, Key(names.MODEL_KIND, "team", "robot")]
    assert forgotten == []


def test_what_is_known_in_this_version_is_no_news(wired, make):
    handlers, _, added, _ = wired
    for _ in range(3):
        handlers.changed(names.JOB_KIND, make.job(resourceVersion="7"))
    assert added == [JOB]


def test_what_is_gone_is_forgotten(wired, make):
    handlers, caches, added, forgotten = wired
    handlers.changed(names.JOB_KIND, make.job())
    handlers.gone(names.JOB_KIND, "team", "robot", "another-uid")
    assert forgotten == []
    handlers.gone(names.JOB_KIND, "team", "robot", "job-uid")
    assert (forgotten, added) == (["job-uid"], [JOB, JOB])
    assert caches.get(*JOB) is None


def test_an_object_under_an_old_name_is_another_one(wired, make):
    handlers, _, _, forgotten = wired
    handlers.changed(names.JOB_KIND, make.job())
    handlers.changed(names.JOB_KIND, make.job(uid="second"))
    assert forgotten == ["job-uid"]


@pytest.mark.parametrize(("label", "kind"), OWNERS)
def test_a_childs_event_is_its_owners(wired, label, kind):
    handlers, _, added, _ = wired
    for child in ("Pod", "Job", "Deployment", "Service"):
        metadata = {"name": "x", "namespace": "team", "uid": child, "labels": {label: "robot"}}
        handlers.changed(child, {"metadata": metadata})
    assert set(added) == {Key(kind, "team", "robot")}


def test_what_a_list_does_not_hold_is_gone(wired, make):
    """A watch was down while things vanished: no event tells of them."""
    handlers, caches, added, _ = wired
    for name, namespace in (("a", "team"), ("b", "team"), ("c", "other")):
        body = make.job()
        body["metadata"] |= {"name": name, "namespace": namespace}
        handlers.changed(names.JOB_KIND, body)
    added.clear()
    handlers.replace(names.JOB_KIND, "team", {("team", "a")})
    assert added == [Key(names.JOB_KIND, "team", "b")]
    assert caches.keys(names.JOB_KIND) == [("team", "a"), ("other", "c")]
    assert list(handlers.everything()) == [Key(names.JOB_KIND, "team", "a"), Key(names.JOB_KIND, "other", "c")]


POOL = Key(names.POOL_KIND, "team", "default")
MODEL = Key(names.MODEL_KIND, "team", "robot")
READY = [{"type": "Ready", "status": "True", "reason": "Available"}]


def shared(make, pool="default", **metadata):
    body = make.model(**metadata)
    body["spec"]["serving"] = {"mode": "Shared", "pool": pool}
    return body


def test_a_shared_model_is_its_pools_business_too(wired, make):
    handlers, _, added, _ = wired
    handlers.changed(names.MODEL_KIND, shared(make, resourceVersion="1"))
    assert added == [MODEL, POOL]
    added.clear()
    handlers.changed(names.MODEL_KIND, shared(make, "other", resourceVersion="2"))
    assert set(added) == {MODEL, POOL, Key(names.POOL_KIND, "team", "other")}, "the one it left, and the one it joined"
    added.clear()
    handlers.gone(names.MODEL_KIND, "team", "robot")
    assert added == [MODEL, Key(names.POOL_KIND, "team", "other")]


def test_subjects_are_told_of_their_pool_only_what_they_depend_on(wired, make):
    handlers, _, added, _ = wired
    handlers.changed(names.MODEL_KIND, shared(make))
    for number, (status, told) in enumerate([
        (None, True), ({"conditions": READY}, True), ({"conditions": READY, "subjects": 7, "replicas": 3}, False),
        ({"conditions": [{**READY[0], "reason": "ScaledToZero"}]}, False),
        ({"conditions": [{**READY[0], "status": "False"}]}, True),
    ]):  # fmt: skip
        added.clear()
        handlers.changed(names.POOL_KIND, make.pool(status=status, resourceVersion=str(number + 1)))
        assert added == [POOL] + [MODEL] * told, number
    added.clear()
    handlers.gone(names.POOL_KIND, "team", "default")
    assert added == [POOL, MODEL]
