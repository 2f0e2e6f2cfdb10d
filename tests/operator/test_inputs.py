"""What a job needs in its namespace."""

import pytest

from dreambooth_api.parse import parse_job
from dreambooth_api.reasons import Reason
from dreambooth_operator.inputs import needs


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
