"""A training whose store or disk fails: for a while, and it waits; for ever, and it ends clearly and loses nothing."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dreambooth_api.exits import ExitCode
from dreambooth_api.reasons import Reason
from dreambooth_api.result import load_result
from dreambooth_trainer import faults, loop
from dreambooth_trainer.checkpoint import Checkpoints, write_state
from dreambooth_trainer.config import fingerprint
from dreambooth_trainer.context import Context
from dreambooth_trainer.distributed import World
from dreambooth_trainer.prepare import Inputs, read_prepared
from dreambooth_trainer.progress import Console
from dreambooth_trainer.session import begin
from dreambooth_trainer.store import FolderStore, S3Store, s3_store
from tests.trainer.conftest import KEY, SECRET
from tests.trainer.faulty import Fault, FaultyProxy

# Checkpoints at 2, 4 and 6; the fault comes after the first and goes, if it does, before the last.
STEPS = 6
ENOUGH = 30.0


@pytest.fixture
def proxy(minio: S3Store) -> Iterator[FaultyProxy]:
    """Before MinIO."""
    found = FaultyProxy(minio.client._base_url._url.netloc)
    yield found
    found.close()


@pytest.fixture
def in_s3(ready, minio: S3Store, proxy: FaultyProxy, tmp_path: Path) -> Context:
    """A prepared job whose store is MinIO behind the proxy."""
    ctx = ready(training={"steps": STEPS})
    direct = minio.at(tmp_path.name)
    for key in ctx.store.keys():  # noqa: SIM118 a Store is no dict
        direct.write(key, ctx.store.read(key))
    through = s3_store(
        f"http://{proxy.address}", minio.bucket, KEY, SECRET, prefix=direct.prefix, patience=ENOUGH, timeout=0.5
    )
    return replace(ctx, store=through)


@pytest.fixture
def before_step(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`before_step({n: call})`: calls are made when `n` steps are done."""
    real = loop.take_step

    def plan(calls: dict[int, Callable[[], object]]) -> list[int]:
        taken: list[int] = []

        def step(session):
            taken.append(session.step)
            calls.get(session.step, lambda: None)()
            return real(session)

        monkeypatch.setattr(loop, "take_step", step)
        return taken

    return plan


@pytest.fixture
def end_of(desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`end_of(ctx)`: a training's exit code and termination message, as its process gives them."""
    monkeypatch.setenv("DREAMBOOTH_TERMINATION_LOG", str(tmp_path / "termination"))

    def run(ctx: Context) -> tuple[int, object]:
        (tmp_path / "termination").unlink(missing_ok=True)
        code = faults.guarded(lambda: loop.train(ctx, replace(desk(ctx), console=Console())))
        return code, load_result((tmp_path / "termination").read_text())

    return run


def until_committed(ctx: Context, step: int) -> None:
    """Wait for the checkpoint of `step`."""
    deadline = time.monotonic() + ENOUGH
    while step not in Checkpoints(ctx).committed():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def newest_step(ctx: Context) -> int:
    """Of the newest checkpoint that is whole and this job's."""
    prepared = read_prepared(ctx)
    state = Checkpoints(ctx).newest(fingerprint(ctx.spec, prepared.base_digest, prepared.dataset_digest))
    assert state is not None
    return state.step


@pytest.mark.cluster
@pytest.mark.parametrize("fault", Fault)
def test_training_goes_on_while_the_store_is_away(in_s3, proxy, before_step, end_of, fault: Fault) -> None:
    ctx = in_s3

    def spoil() -> None:
        until_committed(ctx, 2)
        proxy.spoil(fault)

    def heal() -> None:
        # The checkpoint of step 4 is under way, and the store still away, though a step more was taken.
        assert proxy.hit.wait(ENOUGH)
        proxy.heal()

    taken = before_step({3: spoil, 5: heal})
    code, result = end_of(ctx)
    assert (code, result.progress.step, proxy.hits > 0) == (ExitCode.OK, STEPS, True)
    assert taken == list(range(STEPS))
    assert Checkpoints(ctx).committed() == [4, 6]
    assert [Checkpoints(ctx).load(step).step for step in (4, 6)] == [4, 6]


@pytest.mark.cluster
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.BAD_GATEWAY])
def test_a_store_that_stays_away_ends_the_training_and_spoils_nothing(
    in_s3, proxy, before_step, end_of, fault: Fault
) -> None:
    ctx = in_s3

    def spoil() -> None:
        until_committed(ctx, 2)
        # Only now: a busy machine's own delays are no fault.
        ctx.store.patience = 0.7
        proxy.spoil(fault)

    before_step({3: spoil})
    code, message = end_of(ctx)
    assert (code, message.reason) == (ExitCode.STORE_UNAVAILABLE, Reason.STORE_UNAVAILABLE)
    assert "did not answer" in message.message
    proxy.heal()
    ctx.store.patience = ENOUGH
    assert newest_step(ctx) == 2


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes, mounted at `folder`: the real thing, for which tests run as root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def on_disk(ready, tmp_path: Path) -> Iterator[Callable]:
    """`on_disk(patience)`: a prepared job whose work folder is a disk with room for one and a half states."""
    with disk(tmp_path / "disk", state_bytes(ready("measured"), tmp_path) * 3 // 2) as work:

        def make(patience: float) -> Context:
            ctx = ready(training={"steps": STEPS})
            return replace(ctx, work=work, store=FolderStore(tmp_path / "out" / "store", patience))

        yield make


def state_bytes(ctx: Context, folder: Path) -> int:
    """Of the files of one state."""
    session = begin(ctx, Inputs(ctx), read_prepared(ctx), World(), Console(silent=True))
    loop.take_step(session)
    write_state(session.state([]), folder / "state")
    return sum(file.stat().st_size for file in (folder / "state").iterdir())


def fill(work: Path) -> None:
    """Take all the room there is."""
    with (work / "filler").open("wb") as file:
        try:
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        except OSError:
            pass


def files_in(work: Path) -> list[Path]:
    return [path for path in work.rglob("*") if path.is_file()]


def test_a_disk_with_room_for_one_state_is_enough(on_disk, before_step, end_of, capsys) -> None:
    """For every checkpoint, and for a resume that finds what a kill left there."""
    ctx = on_disk(0.0)

    def killed() -> None:
        until_committed(ctx, 2)
        raise KeyboardInterrupt

    before_step({3: killed})
    with pytest.raises(KeyboardInterrupt):
        end_of(ctx)
    left = Checkpoints(ctx).local / "rank-0"
    left.mkdir(parents=True)
    fill(left)
    taken = before_step({})
    assert end_of(ctx)[0] == ExitCode.OK
    assert taken == [2, 3, 4, 5]
    assert Checkpoints(ctx).committed() == [4, 6]
    assert files_in(ctx.work) == []
    assert "no room" not in capsys.readouterr().out


def test_a_full_disk_is_waited_for(on_disk, before_step, end_of, capsys: pytest.CaptureFixture) -> None:
    ctx = on_disk(ENOUGH)

    def full() -> None:
        until_committed(ctx, 2)
        fill(ctx.work)

    before_step({3: full, 5: lambda: make_room(ctx, capsys)})
    code, result = end_of(ctx)
    assert (code, result.checkpoint.step) == (ExitCode.OK, STEPS)
    assert Checkpoints(ctx).committed() == [4, 6]
    assert files_in(ctx.work) == []


def make_room(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    """Once the checkpoint that is under way has met the full disk."""
    deadline, said = time.monotonic() + ENOUGH, ""
    while "no room for a checkpoint in" not in said:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        said += capsys.readouterr().out
    (ctx.work / "filler").unlink()


def test_a_disk_that_stays_full_says_so_and_spoils_nothing(on_disk, before_step, end_of) -> None:
    ctx = on_disk(0.5)

    def full() -> None:
        until_committed(ctx, 2)
        fill(ctx.work)

    before_step({3: full})
    code, message = end_of(ctx)
    assert (code, message.reason) == (ExitCode.STORE_UNAVAILABLE, Reason.STORE_UNAVAILABLE)
    assert "the local disk is full" in message.message
    assert "ephemeral storage" in message.message
    # Also a resume that finds it full: the checkpoint is not taken for a spoilt one.
    taken = before_step({})
    again, message = end_of(ctx)
    assert (again, taken, "the local disk is full" in message.message) == (code, [], True)
    (ctx.work / "filler").unlink()
    assert newest_step(ctx) == 2
