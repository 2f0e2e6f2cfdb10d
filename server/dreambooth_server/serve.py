"""On one machine:  dreambooth serve DIR_OR_URI… [--host 127.0.0.1] [--port 8080] [--base DIR] [--compile]"""

import argparse

from dreambooth_api.names import SERVER_PORT
from dreambooth_server.process import run
from dreambooth_server.settings import Power, Settings, SubjectSource


def main(argv: list[str]) -> int:
    """Serve the subjects of the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="dreambooth serve", description="Serve personalised subjects of one base.")
    parser.add_argument(
        "artifacts",
        nargs="+",
        metavar="DIR_OR_URI",
        help="an artifact's folder or URI, or the folder of a `dreambooth run`; the first is the default model",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=SERVER_PORT)
    parser.add_argument("--base", metavar="DIR_OR_URI", help="where the base is, if not where the artifacts say")
    parser.add_argument("--compile", action="store_true", help="compile first, for minutes, and draw faster then")
    args = parser.parse_args(argv)
    url = f"http://{args.host}:{args.port}"
    print(f"playground  {url}/   API  {url}/v1   (loading …)", flush=True)
    return run(
        Settings(
            subjects=tuple(SubjectSource(artifact) for artifact in args.artifacts),
            base=args.base,
            power=Power(compile=args.compile),
            host=args.host,
            port=args.port,
        )
    )
