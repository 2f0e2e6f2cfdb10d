"""In a pod:  python -m dreambooth_server --artifact URI --digest sha256:… --name SUBJECT [--base URI] [--port 8080]"""

import argparse
import sys

from dreambooth_api.names import SERVER_PORT
from dreambooth_server.process import run
from dreambooth_server.settings import Settings, SubjectSource


def main(argv: list[str] | None = None) -> int:
    """Serve one subject; returns the exit status."""
    parser = argparse.ArgumentParser(prog="dreambooth_server", description="Serve one personalised subject.")
    parser.add_argument("--artifact", required=True, metavar="URI", help="s3://… or file://… of its folder")
    parser.add_argument("--digest", required=True, metavar="sha256:HEX", help="what the artifact must be")
    parser.add_argument("--name", required=True, help="what `model` calls it")
    parser.add_argument("--base", metavar="URI", help="where the base is, if not where the artifact says")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=SERVER_PORT)
    parser.add_argument("--drain-seconds", type=float, default=5, help="accept requests for so long after SIGTERM")
    parser.add_argument("--grace-seconds", type=float, default=20, help="and let those in flight finish for so long")
    args = parser.parse_args(argv)
    return run(
        Settings(
            subjects=(SubjectSource(args.artifact, args.digest, args.name),),
            base=args.base,
            host=args.host,
            port=args.port,
            drain_seconds=args.drain_seconds,
            grace_seconds=args.grace_seconds,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
