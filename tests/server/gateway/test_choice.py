"""The rules by which artifacts and replicas are chosen."""

from collections import Counter

from gateway_fakes import digest, target

from dreambooth_api.routes import Replica
from dreambooth_server.gateway.choice import Shares, pick_dedicated, pick_shared, ranked

REPLICAS = [Replica(pod=f"pod-{n}", address=f"10.0.0.{n}:8080") for n in range(5)]


def test_subjects_are_spread_and_only_those_of_a_lost_replica_move() -> None:
    before = {n: ranked(digest(n), REPLICAS)[0].pod for n in range(500)}
    after = {n: ranked(digest(n), REPLICAS[1:])[0].pod for n in range(500)}
    assert min(Counter(before.values()).values()) > 60
    assert {before[n] for n in before if before[n] != after[n]} == {"pod-0"}
    assert ranked(digest(1), REPLICAS) == ranked(digest(1), REPLICAS[::-1])


def test_a_warm_replica_is_left_when_it_has_what_it_is_meant_to_carry() -> None:
    order = ranked(digest(1), REPLICAS)
    load = Counter({order[0].address: 3})
    assert pick_shared(digest(1), REPLICAS, 4, lambda r: load[r.address]) == order[0]
    load[order[0].address] = 4
    assert pick_shared(digest(1), REPLICAS, 4, lambda r: load[r.address]) == order[1]
    load.update({replica.address: 8 for replica in REPLICAS})
    assert pick_shared(digest(1), REPLICAS, 4, lambda r: load[r.address]) is None
    assert pick_shared(digest(1), [], 4, lambda r: 0) is None


def test_dedicated_replicas_share_evenly() -> None:
    load: Counter[str] = Counter()
    while found := pick_dedicated(REPLICAS, 2, lambda r: load[r.address]):
        load[found.address] += 1
    assert set(load.values()) == {4}
    assert len(load) == 5


def test_weights_are_kept_exactly() -> None:
    shares, targets = Shares(), [target(weight=90), target("canary", 2, 10)]
    picked = [shares.pick(targets).digest for _ in range(100)]
    assert Counter(picked) == {digest(1): 90, digest(2): 10}
    # Spread out, not in one run.
    assert max(len(run) for run in "".join("c" if d == digest(2) else "s" for d in picked).split("c")) <= 10
    assert {shares.pick([target(weight=0), target("canary", 2, 100)]).digest for _ in range(10)} == {digest(2)}
