"""Overrides that would let a pod out of its namespace are refused by name, unless they are allowed."""

import pytest

from dreambooth_api.pods import PodOverrides
from dreambooth_api.reasons import Reason
from dreambooth_operator import allowances
from dreambooth_operator.decide_job import decide_job
from dreambooth_operator.decide_model import decide_model

ESCAPES = [
    ({"serviceAccountName": "admin"}, "serviceAccountName", "serviceAccountName"),
    ({"hostNetwork": True}, "hostNetwork", "hostNetwork"),
    ({"hostIPC": True}, "hostIPC", "hostIPC"),
    ({"hostPID": True}, "hostPID", "hostPID"),
    ({"runAsUser": 0}, "runAsUser", "runAsUser"),
    ({"privileged": True}, "privileged", "privileged"),
    ({"capabilities": ["SYS_ADMIN"]}, "capabilities[0]", "capabilities/SYS_ADMIN"),
    ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "volumes[0].hostPath", "volumes/hostPath"),
    ({"volumes": [{"name": "x", "secret": {"secretName": "s"}}]}, "volumes[0].secret", "volumes/secret"),
    ({"volumes": [{"name": "x", "csi": {"driver": "d"}}]}, "volumes[0].csi", "volumes/csi"),
    ({"priorityClassName": "system-node-critical"}, "priorityClassName", "systemPriority"),
    ({"annotations": {"container.apparmor.security.beta.kubernetes.io/train": "unconfined"}}, "apparmor", "unconfined"),
]
B = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"namespaces": "are labels here"}}}
SOURCE = {"kind": "PersistentVolumeClaim", "name": "c", "namespace": "b"}
ESCAPES += [
    ({"affinity": {"podAffinity": {required: [term]}}}, f"affinity.podAffinity.{required}[0].{key}", "otherNamespaces")
    for required in ["requiredDuringSchedulingIgnoredDuringExecution"]
    for key, term in [
        ("namespaces", {**B, "namespaces": ["b"]}),
        ("namespaceSelector", {**B, "namespaceSelector": {}}),
    ]
] + [
    (
        {"volumes": [{"name": "x", "ephemeral": {"volumeClaimTemplate": {"spec": {"dataSourceRef": SOURCE}}}}]},
        "volumes[0].ephemeral.volumeClaimTemplate.spec.dataSourceRef.namespace",
        "otherNamespaces",
    )
]
TOKEN = {"name": "x", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}


@pytest.mark.parametrize(("template", "field", "word"), ESCAPES)
def test_what_is_not_allowed_is_refused_by_name(make, settings, template, field, word):
    decision = decide_job(make.view(make.job({"topology": {"template": template}})), settings)
    failed = next(c for c in decision.status["conditions"] if c["type"] == "Failed")
    assert (failed["status"], failed["reason"]) == ("True", Reason.INVALID_SPEC)
    assert "spec.topology.template." in failed["message"]
    assert field in failed["message"]
    assert word in failed["message"]
    assert decision.apply == ()
    overrides = PodOverrides.model_validate(template)
    assert allowances.refusal(overrides, "x", {word}) is None


def test_a_served_models_pods_are_held_to_the_same(make, settings):
    serving = {"template": {"hostNetwork": True}}
    spec = {**make.model()["spec"], "serving": serving}
    decision = decide_model(make.model_view(make.model(spec)), settings)
    assert decision.apply == ()
    assert {c["reason"] for c in decision.status["conditions"]} == {Reason.INVALID_SPEC}
    job = decide_job(make.view(make.job({"publish": {"serving": serving}})), settings)
    assert "spec.publish.serving.template.hostNetwork" in job.status["conditions"][1]["message"]


def test_a_token_is_not_had_by_allowing_projected_volumes():
    overrides = PodOverrides.model_validate({"volumes": [TOKEN]})
    refused = allowances.refusal(overrides, "t", {"volumes/projected"})
    assert "t.volumes[0].projected.sources[0].serviceAccountToken" in refused.message
    assert allowances.refusal(overrides, "t", {"volumes/projected", "volumes/serviceAccountToken"}) is None


@pytest.mark.parametrize("kind", ["labels", "annotations"])
def test_keys_by_which_the_operator_knows_its_own_cannot_be_set(kind):
    overrides = PodOverrides.model_validate({kind: {"dreambooth.dev/model": "another"}})
    assert "reserved" in allowances.refusal(overrides, "t", {"unconfined"}).message


def test_the_namespaces_own_volumes_need_no_leave():
    volumes = [{"name": "a", "emptyDir": {}}, {"name": "b", "persistentVolumeClaim": {"claimName": "c"}}]
    assert allowances.refusal(PodOverrides.model_validate({"volumes": volumes}), "t", ()) is None
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{**B, "namespaces": []}]}}
    assert allowances.refusal(PodOverrides.model_validate({"affinity": affinity}), "t", ()) is None


def test_a_change_while_the_input_is_checked_does_not_slip_through(life, make):
    """topology may be edited: the training Job that would be made from it is held to the rules, too."""
    life.step()
    life.finish("robot-prepare")
    body = life.view.body
    topology = {**body["spec"]["topology"], "template": {"hostPID": True}}
    decision = life.step(body={**body, "spec": {**body["spec"], "topology": topology}})
    assert decision.apply == ()
    assert life.view.body["status"]["phase"] == "Failed"
