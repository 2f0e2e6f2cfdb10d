"""Exit codes keep clear of those that the shell, Python and signals give."""

from dreambooth_api.exits import PERMANENT, ExitCode


def test_codes_are_nobody_else_s():
    for code in set(ExitCode) - {ExitCode.OK}:
        assert code not in (1, 2)
        assert code < 126


def test_a_saved_state_and_a_lost_store_are_retried():
    assert not {ExitCode.SAVED_ON_SIGTERM, ExitCode.STORE_UNAVAILABLE, ExitCode.PEER_LOST} & set(PERMANENT)
