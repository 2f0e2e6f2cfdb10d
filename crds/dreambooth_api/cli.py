"""`dreambooth`: finds its subcommands by entry point, so that this package imports neither trainer nor server."""

import sys
from importlib.metadata import entry_points


def main(argv: list[str] | None = None) -> int:
    """Run `dreambooth COMMAND ...`; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    commands = {entry.name: entry for entry in entry_points(group="dreambooth.commands")}
    if not argv or argv[0] not in commands:
        asked_for_help = argv[:1] in (["-h"], ["--help"])
        out = sys.stdout if asked_for_help else sys.stderr
        print(f"usage: dreambooth {{{','.join(sorted(commands))}}} …", file=out)
        return 0 if asked_for_help else 2
    try:
        command = commands[argv[0]].load()
    except ModuleNotFoundError as e:
        print(f"dreambooth {argv[0]}: {e.name} is not installed: install the extra that has it", file=sys.stderr)
        return 2
    return command(argv[1:])
