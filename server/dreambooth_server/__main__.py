"""In a pod:  python -m dreambooth_server --artifact URI --digest sha256:… --name SUBJECT [--base URI] [--port 8080]

A pool:    python -m dreambooth_server --pool --base URI [--max-rank N] [--adapters-on-device N] …
"""

import argparse
import sys

from dreambooth_api.names import SERVER_PORT
from dreambooth_api.pool import Adapters
from dreambooth_server.process import run
from dreambooth_server.settings import Power, Precision, Room, Settings, SubjectSource


def main(argv: list[str] | None = None) -> int:
    """Serve one subject, or a pool; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    alone = (args.artifact, args.digest, args.name)
    if args.pool and (any(alone) or not args.base):
        parser.error("--pool takes --base, and no --artifact, --digest or --name")
    if not args.pool and not all(alone):
        parser.error("say --artifact, --digest and --name, or --pool")
    return run(
        Settings(
            subjects=() if args.pool else (SubjectSource(args.artifact, args.digest, args.name),),
            base=args.base,
            revision=args.base_revision,
            room=Room(args.adapters_on_device, args.adapters_in_memory, args.max_rank) if args.pool else None,
            power=Power(args.batch, args.precision, args.compile),
            host=args.host,
            port=args.port,
            waiting=args.waiting,
            patience=args.patience_seconds,
            drain_seconds=args.drain_seconds,
            grace_seconds=args.grace_seconds,
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dreambooth_server", description="Serve one personalised subject, or a pool.")
    parser.add_argument("--artifact", metavar="URI", help="s3://… or file://… of its folder")
    parser.add_argument("--digest", metavar="sha256:HEX", help="what the artifact must be")
    parser.add_argument("--name", help="what `model` calls it")
    parser.add_argument("--base", metavar="URI", help="where the base is, if not where the artifact says")
    _add_pool(parser)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=SERVER_PORT)
    parser.add_argument("--batch", type=int, default=Power().batch, help="pictures that may share a forward pass")
    parser.add_argument("--precision", type=Precision, default=Precision.AUTO, choices=list(Precision))
    parser.add_argument("--compile", action="store_true", help="draw the usual size by programs, made before readiness")
    parser.add_argument("--waiting", type=int, default=Settings().waiting, help="requests that may wait")
    parser.add_argument(
        "--patience-seconds", type=float, default=Settings().patience, help="refuse what is likely to wait longer"
    )
    parser.add_argument("--drain-seconds", type=float, default=5, help="accept requests for so long after SIGTERM")
    parser.add_argument("--grace-seconds", type=float, default=20, help="and let those in flight finish for so long")
    return parser


def _add_pool(parser: argparse.ArgumentParser) -> None:
    usual = Adapters()
    parser.add_argument("--pool", action="store_true", help="draw whatever LoRA subject of --base a request names")
    parser.add_argument("--base-revision", metavar="REV", help="of a pool's base, on the hub")
    parser.add_argument("--max-rank", type=int, default=usual.max_rank, help="the highest LoRA rank")
    parser.add_argument("--adapters-on-device", type=int, default=usual.on_device, metavar="N")
    parser.add_argument("--adapters-in-memory", type=int, default=usual.in_memory, metavar="N")


if __name__ == "__main__":
    sys.exit(main())
