"""The work queue: coalescing, one at a time per object, delays and back-off."""

import asyncio
import contextlib
import time

from dreambooth_operator.queue import WorkQueue


@contextlib.asynccontextmanager
async def working(queue, reconcile, workers=2):
    tasks = [asyncio.create_task(queue.work(reconcile)) for _ in range(workers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_waits_is_done_once():
    queue, done = WorkQueue(), []
    for _ in range(5):
        queue.add("a")

    async def reconcile(key):
        done.append(key)

    async with working(queue, reconcile):
        await until(lambda: done)
        await asyncio.sleep(0.05)
    assert done == ["a"]


async def test_an_object_is_never_reconciled_twice_at_once_and_no_event_is_lost():
    queue, running, most, runs = WorkQueue(), 0, 0, 0

    async def reconcile(_):
        nonlocal running, most, runs
        running += 1
        most, runs = max(most, running), runs + 1
        await asyncio.sleep(0.05)
        running -= 1

    async with working(queue, reconcile, workers=4):
        queue.add("a")
        await until(lambda: running == 1)
        for _ in range(3):
            queue.add("a")
        await until(lambda: runs == 2 and not running)
        await asyncio.sleep(0.1)
    assert (most, runs) == (1, 2)


async def test_different_objects_run_side_by_side():
    queue, running = WorkQueue(), set()

    async def reconcile(key):
        running.add(key)
        await asyncio.sleep(1)

    async with working(queue, reconcile):
        queue.add("a")
        queue.add("b")
        await until(lambda: running == {"a", "b"}, 0.5)


async def test_a_failure_is_tried_again_and_does_not_stop_the_others():
    queue, done = WorkQueue(), []

    async def reconcile(key):
        done.append(key)
        if done.count("bad") == 1 and key == "bad":
            raise RuntimeError("once")

    async with working(queue, reconcile, workers=1):
        queue.add("bad")
        queue.add("good")
        await until(lambda: done == ["bad", "good", "bad"])


async def test_only_a_bug_is_logged_with_where_it_was_raised(caplog):
    queue = WorkQueue()

    class Refused(Exception):
        retry_after = 0.0

    async def reconcile(key):
        raise Refused("429: later") if key == "refused" else KeyError("a bug")

    async with working(queue, reconcile, workers=1):
        queue.add("refused")
        queue.add("broken")
        await until(lambda: len(caplog.records) == 2)
    refused, broken = caplog.records
    assert (refused.levelname, refused.exc_info) == ("WARNING", None)
    assert refused.getMessage() == "refused: reconciling failed: 429: later; again in 0.5 s"
    assert broken.levelname == "ERROR"
    assert "raise Refused" in broken.exc_text


async def test_of_several_delays_the_earliest_counts():
    queue, done = WorkQueue(), []

    async def reconcile(key):
        done.append(key)

    async with working(queue, reconcile):
        queue.add("a", after=60)
        queue.add("a", after=0.05)
        queue.add("a", after=60)
        await until(lambda: done)
        await asyncio.sleep(0.5)
    assert len(done) == 1


async def test_an_object_that_is_gone_is_not_looked_at_again():
    queue, done = WorkQueue(), []

    async def reconcile(key):
        done.append(key)

    async with working(queue, reconcile):
        queue.add("a", after=0.05)
        queue.forget("a")
        await asyncio.sleep(0.15)
    assert done == []


async def test_the_age_of_the_oldest_work_shows_what_hangs():
    queue = WorkQueue()
    assert queue.oldest() == 0.0

    async def reconcile(_):
        await asyncio.sleep(10)

    async with working(queue, reconcile):
        begun = time.monotonic()
        queue.add("a")
        await asyncio.sleep(0.05)
        assert 0.04 < queue.oldest() <= time.monotonic() - begun
        assert 0 < queue.longest() <= time.monotonic() - begun
    assert queue.longest() == 0.0


async def test_what_happened_goes_before_what_a_timer_wants():
    queue, done = WorkQueue(), []

    async def reconcile(key):
        done.append(key)

    for name in ("t1", "t2", "t3"):
        queue.add(name, after=0.01)
    await asyncio.sleep(0.05)
    queue.add("event")
    async with working(queue, reconcile, workers=1):
        await until(lambda: len(done) == 4)
    assert done[0] == "event"


async def test_how_long_an_event_waited_is_told():
    waits = []
    queue = WorkQueue(lambda key, seconds: waits.append((key, seconds)))
    begun = time.monotonic()
    queue.add("a")
    await asyncio.sleep(0.1)

    async def reconcile(_):
        pass

    async with working(queue, reconcile):
        await until(lambda: waits)
    ((key, seconds),) = waits
    assert key == "a"
    assert 0.09 < seconds <= time.monotonic() - begun


async def test_a_server_that_asks_for_a_pause_gets_it():
    queue, done = WorkQueue(), []

    class TooMany(Exception):
        retry_after = 1.0

    async def reconcile(_):
        done.append(asyncio.get_running_loop().time())
        if len(done) == 1:
            raise TooMany

    async with working(queue, reconcile):
        queue.add("a")
        await until(lambda: len(done) == 2)
    assert done[1] - done[0] >= 1.0
