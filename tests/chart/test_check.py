"""`helm test`'s program: it waits for what starts late, and fails by name for what never answers."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.chart.variants import CHART


@pytest.fixture
def server():
    """Answers 503 twice on /late, then 200; 404 elsewhere but /."""

    class Handler(BaseHTTPRequestHandler):
        left = 2

        def do_GET(self):
            late = self.path == "/late" and Handler.left > 0
            Handler.left -= late
            self.send_response(503 if late else 200 if self.path in ("/", "/late") else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _check(*urls: str, patience: float = 5) -> subprocess.CompletedProcess[str]:
    program = (CHART / "files/check.py").read_text().replace("+ 120", f"+ {patience}")
    return subprocess.run([sys.executable, "-c", program, *urls], capture_output=True, text=True, check=False)


def test_what_answers_late_is_waited_for(server):
    done = _check(f"{server}/", f"{server}/late")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("answers") == 2


def test_what_never_answers_fails_by_name(server):
    done = _check("http://127.0.0.1:9/x", f"{server}/missing", f"{server}/", patience=1)
    assert done.returncode == 1
    assert "http://127.0.0.1:9/x: <urlopen error" in done.stdout
    assert "/missing: HTTP Error 404" in done.stdout
    assert done.stdout.count("answers") == 1
