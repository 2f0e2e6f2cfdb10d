"""What the caches keep, and by what it is found."""

from dreambooth_api import names
from dreambooth_operator.caches import Caches


def test_an_object_comes_back_as_it_was_and_as_a_copy(make):
    caches = Caches()
    caches.put(names.JOB_KIND, make.job({"suspend": True}))
    caches.get(names.JOB_KIND, "team", "robot")["spec"]["suspend"] = False
    assert caches.get(names.JOB_KIND, "team", "robot") == make.job({"suspend": True})


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
