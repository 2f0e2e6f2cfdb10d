"""kopf's part: which keys an event puts into the queue, and that kopf keeps nothing on users' objects."""

import kopf
import pytest

from dreambooth_api import names
from dreambooth_operator import handlers
from dreambooth_operator.caches import Caches
from dreambooth_operator.health import Health
from dreambooth_operator.views import Key


@pytest.fixture
def wired():
    """Handlers by their ids, the keys that they added, and the uids that they forgot."""
    registry, added, forgotten = kopf.OperatorRegistry(), [], []
    reference = {"metadata": {"namespace": "team", "name": "other", "uid": "u"}}
    caches = Caches({"models_by_job": {("team", "robot"): [reference]}, "jobs_by_model": {}})
    handlers.register(registry, caches, added.append, forgotten.append, Health(oldest=lambda: 0.0))
    found = {handler.id: handler.fn for handler in registry._watching.get_all_handlers()}
    return found, added, forgotten


async def event(handler, kind="ADDED", **labels):
    await handler(event={"type": kind, "object": {}}, namespace="team", name="robot", uid="uid", labels=labels)


async def test_a_job_and_the_models_that_look_at_it_are_reconciled(wired):
    found, added, forgotten = wired
    await event(found["event-dreamboothjob"], "MODIFIED")
    assert added == [Key(names.JOB_KIND, "team", "robot"), Key(names.MODEL_KIND, "team", "other")]
    assert forgotten == []


async def test_what_is_gone_is_forgotten(wired):
    found, _, forgotten = wired
    await event(found["event-personalizedmodel"], "DELETED")
    assert forgotten == ["uid"]


@pytest.mark.parametrize(("label", "kind"), [(names.LABEL_JOB, names.JOB_KIND), (names.LABEL_MODEL, names.MODEL_KIND)])
async def test_a_childs_event_is_its_owners(wired, label, kind):
    found, added, _ = wired
    for child in ("event-pod", "event-job", "event-deployment", "event-service", "event-configmap"):
        await event(found[child], **{label: "robot"})
    assert set(added) == {Key(kind, "team", "robot")}


def test_kopf_keeps_nothing_on_objects_and_posts_nothing():
    settings = kopf.OperatorSettings()
    handlers.configure(settings)
    storage = settings.persistence.diffbase_storage
    assert storage is not None
    assert storage.fetch(body={}) is None
    assert settings.posting.enabled is False
    # Neither namespaces nor CRDs are read: no rights for it are needed.
    assert settings.scanning.disabled is True


def test_only_what_is_ours_is_watched():
    settings = kopf.OperatorSettings()
    handlers.configure(settings)
    assert set(settings.watching.label_selectors.values()) == {f"{names.LABEL_MANAGED_BY}={names.MANAGER}"}
    assert len(settings.watching.label_selectors) == 6
