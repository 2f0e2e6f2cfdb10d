"""Where servers' downloads outlive their pods: each namespace has a claim of its own, and what lies behind it is the
administrator's."""

import pytest

from dreambooth_api import names
from tests.chart.variants import OWN_STORE, VARIANTS

pytestmark = pytest.mark.cluster


def by_name(manifests, kind):
    """(namespace, name) → spec."""
    found = [m for m in manifests if m["kind"] == kind]
    return {(m["metadata"].get("namespace"), m["metadata"]["name"]): m["spec"] for m in found}


def cached(manifests):
    """Namespaces that the operator takes to have the claim."""
    operator = by_name(manifests, "Deployment")["dreambooth-system", "dreambooth-operator"]
    (container,) = operator["template"]["spec"]["containers"]
    return {e["name"]: e.get("value") for e in container["env"]}["DREAMBOOTH_CACHED_NAMESPACES"]


def test_there_is_none_unless_it_is_asked_for(render):
    manifests = render(*OWN_STORE)
    assert not by_name(manifests, "PersistentVolume")
    assert not by_name(manifests, "PersistentVolumeClaim")
    assert cached(manifests) == ""


def test_a_folder_of_the_nodes_is_one_namespaces_alone(render):
    manifests = render(*VARIANTS["node's cache"])
    volumes, claims = by_name(manifests, "PersistentVolume"), by_name(manifests, "PersistentVolumeClaim")
    assert cached(manifests) == "a,b"
    assert set(claims) == {("a", names.CACHE_CLAIM), ("b", names.CACHE_CLAIM)}
    for (namespace, name), claim in claims.items():
        volume = volumes.pop((None, claim["volumeName"]))
        # Bound from both sides: no other claim gets the volume, and this claim gets no other.
        assert volume["claimRef"] == {"namespace": namespace, "name": name}
        assert volume["hostPath"]["path"] == f"/var/cache/dreambooth/{namespace}"
        assert claim["storageClassName"] == volume["storageClassName"] == ""
        assert claim["accessModes"] == volume["accessModes"] == ["ReadWriteMany"]
        assert claim["resources"]["requests"]["storage"] == volume["capacity"]["storage"] == "100Gi"
    assert not volumes


def test_storage_of_the_network_is_claimed_by_its_class(render):
    manifests = render(*VARIANTS["network's cache"])
    assert not by_name(manifests, "PersistentVolume")
    claims = by_name(manifests, "PersistentVolumeClaim")
    assert {claim["storageClassName"] for claim in claims.values()} == {"nfs"}
    default = by_name(render(*OWN_STORE, "--set", "cache.enabled=true"), "PersistentVolumeClaim")
    assert not any("storageClassName" in claim or "volumeName" in claim for claim in default.values())
