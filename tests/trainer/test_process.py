"""Whole processes: exit codes and termination messages, as Kubernetes sees them."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dreambooth_api.exits import ExitCode
from dreambooth_api.reasons import Reason
from dreambooth_api.result import Fault, load_result
from dreambooth_trainer import faults


def run(process: str, tmp_path: Path, env: dict[str, str]) -> tuple[int, object, str]:
    command = [sys.executable, "-m", "dreambooth_trainer", process, "--job", str(tmp_path / "job.json"), "--port", "0"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    message = tmp_path / "termination"
    return done.returncode, load_result(message.read_text()) if message.exists() else None, done.stderr


def empty_volume(_: Path) -> dict:
    return {"subject": {"images": {"uri": "pvc://claim/not-there"}}}


def no_bucket_server(_: Path) -> dict:
    return {"subject": {"images": {"uri": "s3://bucket/robot"}}}


BAD = {
    "no folder": (empty_volume, ExitCode.DATA, Reason.DATASET_NOT_FOUND, "there is nothing at pvc://claim/not-there"),
    "no server": (no_bucket_server, ExitCode.DATA, Reason.DATASET_NOT_FOUND, "needs an S3 server"),
    "negative": (lambda _: {"training": {"steps": -1}}, ExitCode.SPEC, Reason.INVALID_SPEC, "spec.training.steps"),
    "no identifier": (
        lambda _: {"subject": {"prompt": "a photo of a robot"}},
        ExitCode.SPEC,
        Reason.INVALID_SPEC,
        "spec.subject.prompt",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_prepare_with_its_reason(tmp_path: Path, pod, small_job, name: str) -> None:
    spec, code, reason, words = BAD[name]
    status, message, errors = run("prepare", tmp_path, pod(small_job(**spec(tmp_path))))
    assert status == code, errors
    assert isinstance(message, Fault)
    assert message.reason == reason
    assert words in message.message
    assert not (tmp_path / "store").exists()


def test_a_store_secret_without_an_endpoint(tmp_path: Path, pod, small_job) -> None:
    status, message, _ = run("prepare", tmp_path, pod(small_job(), endpoint=""))
    assert status == ExitCode.SPEC
    assert isinstance(message, Fault)
    assert "endpoint" in message.message


def test_bad_input_is_refused_before_torch_is_loaded(tmp_path: Path, pod, small_job) -> None:
    """So that a wrong picture costs a second of a pod, not a minute."""
    code = (
        "import sys; from dreambooth_trainer.__main__ import main; "
        f"status = main(['prepare', '--job', {str(tmp_path / 'job.json')!r}, '--port', '0']); "
        "sys.exit(99 if 'torch' in sys.modules else status)"
    )
    env = pod(small_job(subject={"images": {"uri": "pvc://claim/not-there"}}))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=120)
    assert done.returncode == ExitCode.DATA


class OutOfMemoryError(RuntimeError):
    """By name as torch's."""


class DistBackendError(RuntimeError):
    """By name as torch's."""


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (faults.NonFiniteLoss("x"), ExitCode.NON_FINITE, Reason.NON_FINITE_LOSS),
        (faults.StoreUnavailable("x"), ExitCode.STORE_UNAVAILABLE, Reason.STORE_UNAVAILABLE),
        (faults.SavedOnSigterm("x"), ExitCode.SAVED_ON_SIGTERM, Reason.PREEMPTED),
        (OutOfMemoryError("CUDA out of memory"), ExitCode.GPU_OUT_OF_MEMORY, Reason.GPU_OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), ExitCode.STORE_UNAVAILABLE, Reason.STORE_UNAVAILABLE),
        (DistBackendError("NCCL error"), ExitCode.PEER_LOST, Reason.NODE_LOST),
        (RuntimeError("[gloo] Connection closed by peer [10.0.0.1]:1"), ExitCode.PEER_LOST, Reason.NODE_LOST),
    ],
)
def test_every_known_end_has_code_and_reason(tmp_path: Path, monkeypatch, error, code, reason) -> None:
    monkeypatch.setenv("DREAMBOOTH_TERMINATION_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("WORLD_SIZE", "2")

    def work():
        raise error

    assert faults.guarded(work) == code
    message = load_result((tmp_path / "log").read_text())
    assert isinstance(message, Fault)
    assert message.reason == reason


def test_an_unknown_fault_is_no_known_one(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("DREAMBOOTH_TERMINATION_LOG", str(tmp_path / "log"))

    def work():
        raise ZeroDivisionError("by us")

    assert faults.guarded(work) == 1
    assert not (tmp_path / "log").exists()
    assert "ZeroDivisionError: by us" in capsys.readouterr().err


ABANDONED = """
import os, signal
from dreambooth_trainer.faults import guarded, leave

class Group:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGSEGV)

def work():
    group = Group()
    raise RuntimeError("[gloo] Connection closed by peer [10.0.0.1]:1")

leave(guarded(work))
"""


def test_a_rank_whose_peer_is_gone_takes_nothing_apart(tmp_path: Path) -> None:
    """What holds the ranks' group may crash while it is taken apart; the rank's exit code stays."""
    env = {**os.environ, "WORLD_SIZE": "2", "DREAMBOOTH_TERMINATION_LOG": str(tmp_path / "log")}
    assert subprocess.run([sys.executable, "-c", ABANDONED], env=env, check=False).returncode == ExitCode.PEER_LOST


def test_out_of_memory_says_which_knob() -> None:
    fault = faults.as_fault(OutOfMemoryError("CUDA out of memory"))
    assert fault is not None
    for knob in ("batchSize", "gradientCheckpointing", "resolution"):
        assert knob in str(fault)


def test_pictures_of_a_config_map_are_read_where_they_are_mounted(
    tmp_path: Path, context, small_job, monkeypatch
) -> None:
    from dreambooth_trainer import inputs

    mounted = tmp_path / "mnt" / "pictures"
    (mounted / "..data").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(mounted / "..data" / "1.png")
    (mounted / "1.png").symlink_to("..data/1.png")
    monkeypatch.setattr(inputs, "mounted_path", lambda uri: f"{tmp_path}/mnt/{uri.authority}")
    ctx = context(small_job(subject={"images": {"uri": "configMap://pictures"}}), tmp_path)
    from dreambooth_trainer.pictures import load_pictures

    assert [p.name for p in load_pictures(inputs.fetch_pictures(ctx), 32, 0).train] == ["1.png"]
