"""A trainer that ends as it is told: mounted over the real one in the tests of the operator's answers to failures.

It runs in the real trainer image as `python -m dreambooth_trainer` (PYTHONPATH comes first), from a ConfigMap. What it
does is in the environment: PREPARE and TRAIN, each a word of `PLAYS`, with an optional `@RANK` that leaves other ranks
to run until they are told to stop.
"""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

PLAYS = ("ok", "run", "fault:REASON:CODE", "exit:CODE", "hog")
DIGEST = "sha256:" + "ab" * 32


def say(message):
    """Write the termination message."""
    Path(os.environ["DREAMBOOTH_TERMINATION_LOG"]).write_text(json.dumps(message))


def serve_progress():
    """Answer /progress as rank 0 does, until SIGTERM, which ends the process as one that saved its state."""
    begun = time.monotonic()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            step = min(99, int(time.monotonic() - begun))
            progress = {"step": step, "steps": 100, "percent": step, "loss": "0.1234", "etaSeconds": 100 - step}
            run = {"experiment": "e", "id": "r1"}
            body = json.dumps({"phase": "Training", "progress": progress, "run": run}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    HTTPServer(("", 9400), Handler).serve_forever()


def play(word, process):
    """Do as `word` says."""
    kind, *rest = word.split(":")
    if kind == "fault":
        say({"kind": "Fault", "reason": rest[0], "message": f"a stand-in's {rest[0]}"})
        sys.exit(int(rest[1]))
    if kind == "exit":
        sys.exit(int(rest[0]))
    if kind == "hog":
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1 << 20) * 16))
    if kind == "run":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(77))
        serve_progress()
    if process == "prepare":
        prior = {"uri": "s3://x/priors/1", "images": 3, "reused": 0}
        say({"kind": "Prepared", "prior": prior, "datasetDigest": DIGEST, "baseDigest": DIGEST, "images": 4})
    else:
        progress = {"step": 100, "steps": 100, "percent": 100, "loss": "0.0100"}
        artifact = {"uri": "s3://dreambooth/models/x", "digest": DIGEST, "bytes": 3}
        say({"kind": "Trained", "progress": progress, "artifact": artifact, "scores": {"clipI": "0.900"}})


def main():
    """Play the part that the environment gives to this process and rank."""
    process = sys.argv[1]
    word = os.environ.get(process.replace("launch", "train").upper(), "ok")
    word, _, rank = word.partition("@")
    if rank and rank != os.environ.get("PET_NODE_RANK"):
        word = "run"
    play(word, process)


if __name__ == "__main__":
    main()
