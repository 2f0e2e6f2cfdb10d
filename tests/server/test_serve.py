"""The two command lines, up to where they fail."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from server_kit import free_port

from dreambooth_api.exits import ExitCode
from dreambooth_api.reasons import Reason
from dreambooth_api.result import Fault, load_result
from dreambooth_server.__main__ import main as pod
from dreambooth_server.faults import LoadFault, leave_message
from dreambooth_server.serve import main
from dreambooth_server.settings import Power, Precision, Room, Settings


def test_a_pods_command_that_cannot_serve_says_why(copy_of_lora: Path, tmp_path: Path) -> None:
    command = ["-m", "dreambooth_server", "--artifact", f"file://{copy_of_lora}", "--digest", "sha256:" + "0" * 64]
    command += ["--name", "rusty", "--host", "127.0.0.1", "--port", str(free_port())]
    message = tmp_path / "termination"
    env = {**os.environ, "DREAMBOOTH_TERMINATION_LOG": str(message)}
    ended = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == ExitCode.DATA
    assert "ArtifactInvalid" in ended.stderr
    fault = load_result(message.read_text())
    assert isinstance(fault, Fault)
    assert fault.reason is Reason.ARTIFACT_INVALID
    assert "the manifest is of sha256:" in fault.message


@pytest.mark.parametrize(
    "line",
    [["--pool"], ["--pool", "--base", "x", "--name", "rusty"], ["--name", "rusty"], [], ["--precision", "int3"]],
)
def test_a_command_that_means_nothing_is_refused(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        pod(line)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_pools_command(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Settings] = []
    monkeypatch.setattr("dreambooth_server.__main__.run", lambda settings: told.append(settings) or 0)
    line = ["--pool", "--base", "s3://b/base", "--max-rank", "16", "--adapters-on-device", "4"]
    assert pod([*line, "--adapters-in-memory", "9", "--precision", "bf16", "--batch", "2", "--compile"]) == 0
    assert (told[0].subjects, told[0].base, told[0].room) == ((), "s3://b/base", Room(4, 9, 16))
    assert told[0].power == Power(2, Precision.BF16, compile=True)


def test_dreambooth_serve_of_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "out"), "--port", str(free_port())]) == ExitCode.DATA
    assert f"ArtifactNotFound: {tmp_path / 'out'}" in capfd.readouterr().err


def test_a_taken_port_ends_it_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit) as ended:
            main([str(tmp_path), "--port", str(taken.getsockname()[1])])
    assert ended.value.code != 0


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.ARTIFACT_NOT_FOUND, ExitCode.DATA),
        (Reason.BASE_MODEL_INVALID, ExitCode.BASE_MODEL),
        (Reason.STORE_UNAVAILABLE, ExitCode.STORE_UNAVAILABLE),
    ],
)
def test_exit_statuses_state_the_class(reason: Reason, code: ExitCode) -> None:
    assert LoadFault(reason, "x").exit_code == code


def test_a_long_reason_still_fits_a_termination_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMBOOTH_TERMINATION_LOG", str(tmp_path / "log"))
    leave_message(LoadFault(Reason.ARTIFACT_INVALID, "ü" * 9000))
    assert len((tmp_path / "log").read_bytes()) < 4096
    assert isinstance(load_result((tmp_path / "log").read_text()), Fault)
