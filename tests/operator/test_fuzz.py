"""Every field of all kinds, with what it may hold and what it may not: refused by name or handled, never an exception.

benchmarks and other tests go through valid resources; here the CRDs' own schemas say what to try.
"""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreambooth_api import names
from dreambooth_api.schema import job_definition, model_definition, pool_definition
from dreambooth_operator.caches import Caches
from dreambooth_operator.decide_job import decide_job
from dreambooth_operator.decide_model import decide_model
from dreambooth_operator.decide_pool import decide_pool
from dreambooth_operator.memory import Memory
from dreambooth_operator.observe import observe_job, observe_model, observe_pool
from dreambooth_operator.routes import Table
from dreambooth_operator.settings import Settings
from tests.operator.conftest import NOW, Make
from tests.operator.stage import fuzz, world
from tests.operator.stage.api import Api, ApiError

SETTINGS = Settings("trainer:1", "server:1", gateway_url="http://gateway")
JOB = Make().job()
MODEL = Make().model()
POOL = Make().pool()


def _schema(definition):
    (version,) = definition["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


SCHEMAS = {
    names.JOB_KIND: _schema(job_definition()),
    names.MODEL_KIND: _schema(model_definition()),
    names.POOL_KIND: _schema(pool_definition()),
}
QUIETLY = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


def decide(body):
    """Through the caches and both pure halves, as the operator does."""
    caches = Caches()
    caches.put(body["kind"], body)
    if body["kind"] == names.JOB_KIND:
        return decide_job(observe_job(caches, Memory(), body, NOW), SETTINGS)
    if body["kind"] == names.POOL_KIND:
        return decide_pool(observe_pool(caches, Memory(), body, NOW), SETTINGS)
    Table(caches, lambda namespace, secret: {}, lambda: 0, lambda: 1).current()
    return decide_model(observe_model(caches, Memory(), body, NOW), SETTINGS)


@settings(max_examples=100, **QUIETLY)
@given(st.one_of(*(fuzz.changed(body, SCHEMAS[body["kind"]]) for body in (JOB, MODEL, POOL))))
def test_no_spec_raises(found):
    body, _ = found
    decision = decide(body)
    if "InvalidSpec" in str(decision.status):
        (condition, *_) = [c for c in decision.status["conditions"] if c["reason"] == "InvalidSpec"]
        assert condition["message"]


@pytest.mark.parametrize("body", [JOB, MODEL, POOL], ids=["job", "model", "pool"])
@pytest.mark.parametrize("status", [{"phase": "Dancing"}, {"conditions": "many"}, {"progress": 7, "artifact": []}])
def test_a_status_of_another_release_raises_nothing(body, status):
    decide({**body, "status": status})


@pytest.mark.parametrize("body", [JOB, MODEL, POOL], ids=["job", "model", "pool"])
def test_a_spec_of_another_release_raises_nothing(body):
    newer = {**body, "spec": {**body["spec"], "fromTheFuture": {"a": 1}}}
    assert decide(newer).status == decide(body).status
    assert decide({**body, "spec": {}}).apply == ()


@pytest.mark.cluster
def test_the_api_server_refuses_by_name_or_the_operator_handles_it(server):
    async def tried(body, paths):
        async with Api.of(server) as api:
            try:
                made = await api.create(api.path("dreamboothjobs", "default") + "?dryRun=All", body)
            except ApiError as e:
                assert e.status in (400, 422)  # noqa: PT017
                # The field itself, or the rule of the object that it is in.
                named = [part for path in paths for part in path if part != "spec"]
                assert any(part in str(e) for part in named), (paths, str(e))  # noqa: PT017
            else:
                decide({**made, "kind": body["kind"]})

    @settings(max_examples=60, **QUIETLY)
    @given(fuzz.changed(world.job("fuzz"), SCHEMAS[names.JOB_KIND]))
    def each(found):
        asyncio.run(tried(*found))

    each()
