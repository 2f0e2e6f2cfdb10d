"""`python -m dreambooth_trainer {prepare,train,launch} --job PATH`: the processes of a job's pods."""

import argparse
import sys
from pathlib import Path

from dreambooth_api import names


def main(argv: list[str] | None = None) -> int:
    """Run one process to its end, and with its exit code (`dreambooth_api.exits.ExitCode`); `launch`'s is returned."""
    parser = argparse.ArgumentParser(prog="dreambooth_trainer", description=__doc__)
    parser.add_argument("process", choices=("prepare", "train", "launch"))
    parser.add_argument("--job", type=Path, default=Path(names.JOB_FILE), help="the job as job.json")
    parser.add_argument("--port", type=int, default=names.TRAINER_PORT, help="of /metrics and /progress; 0: any free")
    args = parser.parse_args(argv)
    if args.process == "launch":
        from dreambooth_trainer.launch import launch

        return launch(args.job, args.port)
    from dreambooth_trainer import process

    process.run(args.process, args.job, args.port)


if __name__ == "__main__":
    sys.exit(main())
