"""Programs run to their end."""

import pytest

from dreambooth_local.commands import CommandFailed, run


def test_standard_output_is_returned():
    assert run(["sh", "-c", "echo out; echo err >&2"]) == "out\n"
    assert run(["cat"], stdin="in") == "in"


def test_with_a_log_both_streams_are_appended_to_it(tmp_path):
    log = tmp_path / "log/it.log"
    for _ in range(2):
        assert run(["sh", "-c", "echo out; echo err >&2"], log=log) == ""
    assert log.read_text() == "out\nerr\n" * 2


@pytest.mark.parametrize("logged", [False, True])
def test_a_failure_says_the_command_the_code_and_the_last_words(tmp_path, logged):
    log = tmp_path / "it.log" if logged else None
    with pytest.raises(CommandFailed, match=r"(?s)`sh -c .*` ended with 3:.*the reason"):
        run(["sh", "-c", "echo the reason >&2; exit 3"], log=log)


def test_a_program_that_does_not_end_is_stopped():
    with pytest.raises(CommandFailed, match="did not end within"):
        run(["sleep", "60"], timeout=0.1)
