"""What a failure wastes is what came after the last checkpoint."""

from datetime import timedelta

from dreambooth_operator.gpu_time import Spent, settle


def test_a_good_end_wastes_nothing(make):
    view, alive = make.view(make.job()), {}
    running = make.pod(running={"startedAt": make.ago(60)})
    assert settle(alive, [running], None, view.now) == Spent()
    ended = make.ended(0, ended=10)
    assert settle(alive, [ended], None, view.now) == Spent(useful=50)
    assert settle(alive, [ended], None, view.now) == Spent()


def test_a_failure_wastes_what_came_after_the_checkpoint(make):
    view, alive = make.view(make.job()), {}
    settle(alive, [make.pod(running={"startedAt": make.ago(60)})], None, view.now)
    assert settle(alive, [make.ended(1, ended=0)], make.ago(20), view.now) == Spent(useful=40, wasted=20)


def test_a_pod_that_vanished_failed(make):
    view, alive = make.view(make.job()), {}
    settle(alive, [make.pod(running={"startedAt": make.ago(60)})], None, view.now)
    assert settle(alive, [], None, view.now + timedelta(seconds=5)) == Spent(wasted=65)
    assert alive == {}


def test_what_was_never_seen_running_is_not_counted(make):
    view = make.view(make.job())
    assert settle({}, [make.ended(0)], None, view.now) == Spent()
