"""`dreambooth` finds its subcommands by entry point and says what it has."""

import pytest

from dreambooth_api.cli import main


@pytest.mark.parametrize(("argv", "status"), [([], 2), (["paint"], 2), (["--help"], 0)])
def test_without_a_command_it_says_which_there_are(argv, status, capsys):
    assert main(argv) == status
    out = capsys.readouterr()
    text = out.out if status == 0 else out.err
    assert "run" in text
    assert "serve" in text


@pytest.mark.parametrize("command", ["run", "serve"])
def test_each_command_is_there_and_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert command in capsys.readouterr().out
