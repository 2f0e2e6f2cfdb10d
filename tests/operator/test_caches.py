"""What the caches keep, and by what it is found."""

from dreambooth_api import names
from dreambooth_operator.caches import Caches


def test_an_object_comes_back_as_it_was_and_as_a_copy(make):
    caches = Caches()
    caches.put(names.JOB_KIND, make.job({"suspend": True}))
    caches.get(names.JOB_KIND, "team", "robot")["spec"]["suspend"] = False
    assert caches.get(names.JOB_KIND, "team", "robot") == make.job({"suspend": True})


def test_no_value_is_changed_by_being_kept(make):
    caches, body = Caches(), make.job()
    body["spec"]["odd"] = ['ü\u2028\0"\\😀', 2**63, -0.1, 1e-9, 1.0, None, True, {}, [], {"": ""}]
    caches.put(names.JOB_KIND, body)
    kept = caches.get(names.JOB_KIND, "team", "robot")
    assert kept == body
    assert [type(value) for value in kept["spec"]["odd"]] == [type(value) for value in body["spec"]["odd"]]


def test_phases_are_counted_as_they_change(make):
    caches = Caches()
    caches.put(names.JOB_KIND, make.job(status={"phase": "Training"}, resourceVersion="1"))
    caches.put(names.JOB_KIND, make.job(status={"phase": "Succeeded"}, resourceVersion="2"))
    assert {k: v for k, v in caches.phases(names.JOB_KIND).items() if v} == {"Succeeded": 1}
    caches.drop(names.JOB_KIND, "team", "robot")
    assert not any(caches.phases(names.JOB_KIND).values())


def test_references_follow_the_object(make):
    caches = Caches()
    caches.put(names.MODEL_KIND, make.model({"jobRef": {"name": "robot"}}, resourceVersion="1"))
    assert caches.models_of_job("team", "robot") == ["robot"]
    caches.put(names.MODEL_KIND, make.model({"jobRef": {"name": "other"}}, resourceVersion="2"))
    assert caches.models_of_job("team", "robot") == []
    caches.drop(names.MODEL_KIND, "team", "robot")
    assert caches.models_of_job("team", "other") == []
    assert caches.drop(names.MODEL_KIND, "team", "robot") is None


def test_what_is_older_than_what_is_known_is_no_news(make):
    caches = Caches()
    assert caches.put(names.JOB_KIND, make.job(status={"phase": "Training"}, resourceVersion="10"))
    assert not caches.put(names.JOB_KIND, make.job(resourceVersion="9"))
    assert caches.get(names.JOB_KIND, "team", "robot")["status"]["phase"] == "Training"
    assert caches.put(names.JOB_KIND, make.job(uid="another", resourceVersion="11"))


def test_models_are_found_by_their_pool_and_by_the_secret_of_their_keys(make):
    caches = Caches()
    body = make.model(resourceVersion="1")
    body["spec"]["serving"] = {"mode": "Shared", "pool": "big", "access": {"secret": "keys"}}
    caches.put(names.MODEL_KIND, body)
    assert caches.models_of_pool("team", "big") == ["robot"]
    assert caches.models_with_keys() == {("team", "keys"): ["robot"]}
    body["metadata"]["resourceVersion"], body["spec"]["serving"] = "2", {"mode": "Dedicated", "pool": "big"}
    caches.put(names.MODEL_KIND, body)
    assert caches.models_of_pool("team", "big") == []
    assert caches.models_with_keys() == {}


def test_what_routes_are_made_of_is_counted_and_nothing_else(make):
    caches = Caches()
    caches.put(names.JOB_KIND, make.job())
    pod = make.pod()
    pod["metadata"]["labels"] = {names.LABEL_JOB: "robot"}
    caches.put("Pod", pod)
    assert caches.served == 0
    caches.put(names.MODEL_KIND, make.model())
    caches.put(names.POOL_KIND, make.pool())
    server = make.pod("server")
    server["metadata"]["labels"] = {names.LABEL_POOL: "default"}
    caches.put("Pod", server)
    assert caches.served == 3
    caches.drop("Pod", "team", "server")
    assert caches.served == 4
