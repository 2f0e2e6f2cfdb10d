"""What a job needs in its namespace."""

import pytest

from dreambooth_api.parse import parse_job
from dreambooth_api.reasons import Reason
from dreambooth_operator.inputs import RECENT, STORE, Inputs, needs


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        (
            {"baseModel": {"uri": "hf://a/b", "secretRef": {"name": "hf"}}},
            [("Secret", "hf", Reason.SECRET_NOT_FOUND)],
        ),
        (
            {"subject": {"images": {"uri": "configMap://pictures"}}},
            [("ConfigMap", "pictures", Reason.DATASET_NOT_FOUND)],
        ),
        (
            {"subject": {"images": {"uri": "pvc://data/robot"}}, "baseModel": {"uri": "pvc://models/sd"}},
            [
                ("PersistentVolumeClaim", "data", Reason.DATASET_NOT_FOUND),
                ("PersistentVolumeClaim", "models", Reason.BASE_MODEL_NOT_FOUND),
            ],
        ),
    ],
)
def test_needs(make, spec, expected):
    found = [(need.kind, need.name, need.reason) for need in needs(parse_job(make.job(spec)).spec)]
    assert found == [("Secret", "dreambooth-store", Reason.SECRET_NOT_FOUND), *expected]


class Cluster:
    """Has what is in `there`, and counts how often it was asked."""

    def __init__(self):
        self.there, self.asked = set(), 0

    async def find(self, kind, namespace, name):
        self.asked += 1
        return {} if (kind, namespace, name) in self.there else None


async def test_that_an_input_is_there_is_remembered_for_a_moment_and_that_it_is_not_is_never():
    cluster, now = Cluster(), [0.0]
    inputs = Inputs(cluster, lambda: now[0])
    for asked in (1, 2):
        assert (await inputs.missing("team", iter([STORE]))).reason == Reason.SECRET_NOT_FOUND
        assert cluster.asked == asked
    cluster.there.add(("Secret", "team", STORE.name))
    for _ in range(3):
        assert await inputs.missing("team", iter([STORE])) is None
    assert cluster.asked == 3
    # Of another namespace nothing is known.
    assert await inputs.missing("other", iter([STORE])) is not None
    now[0] += RECENT
    cluster.there.clear()
    assert await inputs.missing("team", iter([STORE])) is not None
