"""A reverse proxy before a real S3 server that misbehaves when told to, and heals when told to."""

import contextlib
import http.client
import socket
import struct
import threading
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

# A request that hangs is let go after this long at the latest, seconds.
HANG = 30
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
# What speaks for one connection only is not passed on.
OF_THE_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})


class Fault(Enum):
    """What an S3 server under load, or the way to it, does to requests."""

    SLOW_DOWN = "503 SlowDown"
    BAD_GATEWAY = "502 of a gateway that speaks no S3"
    HANG = "no answer"
    RESET = "connection reset"
    CUT = "upload cut half-way"


class FaultyProxy:
    """`fault` holds for all requests while it is set; `hits` counts those that met it."""

    def __init__(self, server: str) -> None:
        """`server`: host:port of the real one. Requests keep their Host header, which their signature covers."""
        self.server = server
        self.fault: Fault | None = None
        self.hits = 0
        self.hit, self.healed = threading.Event(), threading.Event()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.address = f"127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def spoil(self, fault: Fault) -> None:
        """From now on requests meet `fault`."""
        self.hit.clear()
        self.healed.clear()
        self.fault = fault

    def heal(self) -> None:
        """From now on requests are answered."""
        self.fault = None
        self.healed.set()

    def close(self) -> None:
        """Let go of what hangs, stop listening."""
        self.heal()
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[FaultyProxy]

    def _serve(self) -> None:
        fault = self.proxy.fault
        if fault is None:
            self._relay(self._body())
            return
        self.proxy.hits += 1
        self.proxy.hit.set()
        self.close_connection = True
        match fault:
            case Fault.SLOW_DOWN:
                self._body()
                self._answer(503, [("Content-Type", "application/xml")], SLOW_DOWN)
            case Fault.BAD_GATEWAY:
                self._body()
                self._answer(502, [("Content-Type", "text/html")], b"<html>Bad Gateway</html>")
            case Fault.HANG:
                self.proxy.healed.wait(HANG)
            case Fault.RESET:
                self._reset()
            case Fault.CUT:
                self._cut()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _headers(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower() not in OF_THE_CONNECTION}

    def _relay(self, body: bytes) -> None:
        upstream = http.client.HTTPConnection(self.proxy.server, timeout=HANG)
        try:
            upstream.request(self.command, self.path, body, self._headers())
            response = upstream.getresponse()
            content = response.read()
        finally:
            upstream.close()
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in OF_THE_CONNECTION]
        self._answer(response.status, kept, content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _cut(self) -> None:
        """The server gets the first half of what is sent, the client no answer."""
        length = int(self.headers.get("Content-Length", 0))
        with contextlib.closing(socket.create_connection(self.proxy.server.split(":"))) as upstream:
            head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            upstream.sendall(f"{self.requestline}\r\n{head}\r\n".encode() + self.rfile.read(length // 2))
        self._reset()

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        # The socket is closed when nothing holds it; then it is reset, because it does not linger.
        self.rfile.close()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Requests are not worth a line."""
