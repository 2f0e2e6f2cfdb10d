"""The demo refuses a cluster on which somebody else installed the platform."""

import pytest

from dreambooth_demo.platform import NAMESPACE, OWNER, OWNER_LABEL, RELEASE, counts_requests, foreign_parts


def _namespace(**labels: str) -> dict:
    return {"metadata": {"name": NAMESPACE, "labels": labels}}


def _definition(namespace: str | None, release: str | None) -> dict:
    annotations = {"meta.helm.sh/release-namespace": namespace, "meta.helm.sh/release-name": release}
    return {
        "metadata": {
            "name": "dreamboothjobs.dreambooth.dev",
            "annotations": {k: v for k, v in annotations.items() if v is not None},
        }
    }


OURS = _namespace(**{OWNER_LABEL: OWNER})


def test_an_empty_cluster_and_our_own_installation_are_safe():
    assert foreign_parts(None, []) == []
    assert foreign_parts(OURS, [_definition(NAMESPACE, RELEASE)]) == []
    # `helm uninstall` keeps the CRDs, with our annotations.
    assert foreign_parts(None, [_definition(NAMESPACE, RELEASE)]) == []


@pytest.mark.parametrize(
    ("namespace", "definitions"),
    [
        (_namespace(), []),
        (None, [_definition("ml-platform", "dreambooth")]),
        (None, [_definition(None, None)]),
        (OURS, [_definition(NAMESPACE, "other")]),
    ],
)
def test_what_another_owner_installed_is_named(namespace, definitions):
    assert foreign_parts(namespace, definitions)


def _api_service(**service: str) -> dict:
    return {"spec": {"service": {"port": 443, **service}}}


def test_autoscalers_ask_for_requests_in_flight_only_where_the_local_adapter_answers():
    assert counts_requests(_api_service(namespace="kube-system", name="prometheus-adapter"))
    for other in (None, _api_service(namespace="keda", name="keda-metrics-apiserver"), {"spec": {"service": None}}):
        assert not counts_requests(other)
