"""What gateways report, taken together."""

from dreambooth_api.model import RolloutStatus
from dreambooth_api.routes import BOUNDS, REPORT_SECONDS, GatewayReport, Load, Traffic
from dreambooth_operator.memory import Memory
from dreambooth_operator.traffic import FORGET_SECONDS, Demand, Gateways

SUBJECT, DIGEST = "team/robot", "sha256:" + "a" * 64


def counted(requests, errors=0):
    return Traffic(requests=requests, errors=errors, durations=[requests] + [0] * len(BOUNDS))


def report(gateway="one", load=None, requests=None, errors=0, draining=False):
    loads = {SUBJECT: load} if load else {}
    traffic = {SUBJECT: {DIGEST: counted(requests, errors)}} if requests is not None else {}
    return GatewayReport(gateway=gateway, loads=loads, traffic=traffic, draining=draining)


def load(in_flight=0, waiting=0, idle=0.0):
    return Load(in_flight=in_flight, waiting=waiting, idle_seconds=idle)


def test_counters_of_all_gateways_add_up_and_each_counts_once():
    gateways = Gateways(0)
    gateways.take(report(requests=5), 1)
    gateways.take(report(requests=7, errors=1), 2)
    gateways.take(report("two", requests=10), 3)
    assert gateways.seen(SUBJECT, DIGEST) == counted(17, 1)


def test_a_counter_that_began_anew_counts_whole():
    gateways = Gateways(0)
    gateways.take(report(requests=5), 1)
    gateways.take(report(requests=2), 2)
    assert gateways.seen(SUBJECT, DIGEST).requests == 7


def test_a_subject_that_is_gone_is_forgotten():
    gateways = Gateways(0)
    gateways.take(report(requests=5), 1)
    gateways.forget(SUBJECT)
    gateways.take(report(requests=1), 2)
    assert gateways.seen(SUBJECT, DIGEST).requests == 1


def test_demand_is_of_all_gateways_together_and_the_last_request_of_any():
    gateways, late = Gateways(0), REPORT_SECONDS + 1
    gateways.take(report(load=load(2, 1, 30)), late)
    gateways.take(report("two", load=load(3, 0, 5)), late)
    assert gateways.demand([SUBJECT], late + 2) == Demand(True, 1, 5, 7)
    assert gateways.demand(["team/other"], late + 2).idle == 2, "since it was heard first, at most"


def test_without_reports_nothing_is_known():
    gateways = Gateways(0)
    assert not gateways.demand([SUBJECT], 1000).known
    gateways.take(report(load=load(idle=900)), 1)
    assert not gateways.demand([SUBJECT], 2).known, "others may not have been heard yet"
    assert gateways.demand([SUBJECT], REPORT_SECONDS).known
    assert not gateways.demand([SUBJECT], 2 * REPORT_SECONDS + 2).known, "it has fallen silent"


def test_what_a_silent_gateway_had_waits_for_nobody():
    gateways = Gateways(0)
    gateways.take(report(load=load(waiting=1)), 0)
    gateways.take(report("two", load=load(idle=100)), REPORT_SECONDS + 1)
    assert gateways.demand([SUBJECT], REPORT_SECONDS + 1).waiting == 0


def test_gateways_that_take_requests_are_counted():
    """One that says that it ends counts no more, one that falls silent in a moment; what both have still does."""
    gateways = Gateways(0)
    gateways.take(report("one", load=load(1)), 0)
    assert gateways.count(0) == 1
    gateways.take(report("two", load=load(1)), 1)
    assert gateways.count(1) == 2
    gateways.take(report("two", load=load(1), draining=True), 2)
    assert (gateways.count(2), gateways.demand([SUBJECT], 2).in_flight) == (1, 2)
    assert gateways.count(REPORT_SECONDS + 1) == 0


def test_a_gateway_that_comes_and_goes_leaves_nothing():
    gateways = Gateways(0)
    for number in range(100):
        gateways.take(report(f"gateway-{number}", requests=1), number * (FORGET_SECONDS + 1))
    assert len(gateways._of) == 1


def test_of_a_canary_counts_what_came_since_its_step_began():
    memory = Memory()
    assert memory.since_step(None, counted(0)).requests == 0
    first = RolloutStatus(digest=DIGEST, generation=1, since="2026-11-24T12:00:00Z")
    assert memory.since_step(first, counted(40)).requests == 0
    assert memory.since_step(first, counted(45, 2)) == counted(5, 2)
    second = first.model_copy(update={"step": 1, "since": "2026-11-24T12:01:00Z"})
    assert memory.since_step(second, counted(50, 2)).requests == 0


def test_after_a_restart_all_that_gateways_counted_of_a_canary_counts():
    """The step goes on, though nobody remembers the counters at its begin."""
    state = RolloutStatus(digest=DIGEST, generation=1, since="2026-11-24T12:00:00Z")
    assert Memory().since_step(state, counted(12, 3)) == counted(12, 3)
