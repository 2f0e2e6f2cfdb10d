"""The order of `up`."""

from pathlib import Path

from dreambooth_local import up
from dreambooth_local.places import Places
from dreambooth_local.progress import ready

WHERE = Places(Path("/cache"), Path("/state"))


def test_every_name_that_a_step_waits_for_is_a_step():
    steps = up.steps(WHERE)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    assert {before for step in steps for before in step.after} <= set(names)


def test_the_order_has_no_circle():
    steps, done = up.steps(WHERE), []
    while now := [step.name for step in ready(steps, done, done)]:
        done += now
    assert len(done) == len(steps)


def test_compiling_and_packages_begin_at_once_and_images_do_not_wait_for_the_cluster():
    steps = {step.name: step for step in up.steps(WHERE)}
    first = {step.name for step in ready(list(steps.values()), [], [])}
    assert first == {"Debian packages", "compile Kubernetes"}
    assert steps["build images"].after == ["base image"]


def test_a_cluster_whose_up_was_cut_short_does_not_serve(tmp_path):
    assert not up.serves(Places(tmp_path / "cache", tmp_path / "state"))
