"""Events are about their object, and the same when told again."""

import itertools
from dataclasses import replace
from datetime import timedelta

from dreambooth_api import names
from dreambooth_api.job import DreamBoothJobStatus
from dreambooth_api.reasons import Phase
from dreambooth_operator.events import event
from dreambooth_operator.status import job_events
from dreambooth_operator.views import Told

TOLD = Told("Warning", "OutOfMemory", "m", "Training/1/1", 7)


def test_an_event_is_about_its_object(make):
    made = event(names.JOB_KIND, make.view(make.job()), TOLD)
    assert made["involvedObject"]["uid"] == "job-uid"
    assert made["metadata"]["namespace"] == "team"
    assert (made["type"], made["reason"]) == ("Warning", "OutOfMemory")


def test_told_again_it_is_the_same_event(make):
    view = make.view(make.job())
    later = replace(view, now=view.now + timedelta(minutes=1))
    assert event(names.JOB_KIND, view, TOLD)["metadata"] == event(names.JOB_KIND, later, TOLD)["metadata"]


def test_another_occasion_is_another_event(make):
    view = make.view(make.job())
    other = TOLD._replace(occasion="Training/2/1")
    assert event(names.JOB_KIND, view, TOLD)["metadata"] != event(names.JOB_KIND, view, other)["metadata"]


def test_what_is_told_later_within_a_second_has_a_later_name(make):
    view = make.view(make.job())
    made = [event(names.JOB_KIND, view, TOLD._replace(message=f"message {n}", place=n)) for n in range(20)]
    found = [body["metadata"]["name"] for body in made]
    assert found == sorted(found)


def test_a_life_within_one_second_is_told_in_its_order(make):
    view, told = make.view(make.job()), []
    phases = (Phase.PREPARING, Phase.TRAINING, Phase.SCORING, Phase.PUBLISHING, Phase.SUCCEEDED)
    life = [DreamBoothJobStatus(), *(DreamBoothJobStatus(phase=phase) for phase in phases)]
    for old, new in itertools.pairwise(life):
        told += [event(names.JOB_KIND, view, one) for one in job_events(old, new)]
    by_name = sorted(told, key=lambda body: body["metadata"]["name"])
    assert [body["reason"] for body in by_name] == list(phases)


def test_a_name_with_the_longest_name_fits(make):
    name = "a" * names.MAX_NAME_LENGTH
    assert len(event(names.JOB_KIND, make.view(make.job(name=name)), TOLD)["metadata"]["name"]) < 253
