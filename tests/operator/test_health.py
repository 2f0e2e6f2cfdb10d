"""Alive is who works: a hung loop, a stuck reconcile and a dead watch are not."""

import time

from dreambooth_operator.health import DEAF, Health


def test_a_dead_watch_is_death_and_one_that_was_not_listed_is_not_ready():
    now = time.monotonic()
    health = Health(watches=lambda: [("Job", now, True), ("Pod", now - DEAF - 1, True)])
    alive, facts = health.alive()
    assert not alive
    assert facts["lastHeardAge"]["Pod"] > DEAF
    assert health.ready()[0]
    health = Health(watches=lambda: [("Job", now, True), ("Pod", now, False)], leading=lambda: False)
    assert health.alive()[0]
    assert health.ready() == (False, {"leading": False, "notListedYet": ["Pod"]})


def test_a_hung_loop_is_death():
    health = Health()
    assert health.alive()[0]
    health.ticked -= 100
    assert not health.alive()[0]


def test_a_long_queue_is_no_death_as_long_as_it_moves():
    health = Health(oldest=lambda: 1000.0, longest=lambda: 1.0)
    health.worked()
    assert health.alive()[0]
    health.reconciled -= 1000
    assert not health.alive()[0]
    health = Health(oldest=lambda: 1000.0, longest=lambda: 1000.0)
    health.worked()
    assert not health.alive()[0]


def test_the_last_reconcile_is_told():
    health = Health()
    assert health.alive()[1]["lastReconcileAge"] is None
    health.worked()
    assert health.alive()[1]["lastReconcileAge"] < 1
