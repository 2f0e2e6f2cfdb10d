"""Questions to the node and to DNS, the latter by a real UDP socket."""

import socket
import threading
from contextlib import contextmanager

import pytest

from dreambooth_local import health


def test_a_dns_question_is_as_the_rfc_has_it():
    assert (
        health.query("a.bc") == b"DB\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + b"\x01a\x02bc\x00" + b"\x00\x01\x00\x01"
    )


@contextmanager
def dns_server(*answers: bytes | None):
    """Answers as many questions, None with silence; yields the list of questions seen and the port."""
    seen: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind(("127.0.0.1", 0))
        line.settimeout(5)

        def serve() -> None:
            for answer in answers:
                question, client = line.recvfrom(512)
                seen.append(question)
                if answer:
                    line.sendto(question + answer, client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield seen, line.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(("answer", "right"), [("10.96.0.1", True), ("10.96.0.2", False)])
def test_a_name_resolves_when_the_answer_is_the_address(answer, right):
    with dns_server(socket.inet_aton(answer)) as (seen, port):
        assert health.resolves("x.y", "10.96.0.1", "127.0.0.1", port=port) is right
    assert seen == [health.query("x.y")]


def test_a_datagram_that_is_lost_is_sent_again():
    with dns_server(None, socket.inet_aton("10.96.0.1")) as (seen, port):
        assert health.resolves("x.y", "10.96.0.1", "127.0.0.1", seconds=0.5, port=port)
    assert len(seen) == 2


def test_silence_is_no_answer():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        assert health.resolves("x.y", "10.96.0.1", "127.0.0.1", seconds=0.1, port=mute.getsockname()[1]) is False


@pytest.mark.parametrize(
    ("node", "ready"),
    [
        ({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, True),
        ({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, False),
        ({"status": {"conditions": [{"type": "DiskPressure", "status": "True"}]}}, False),
        ({}, False),
    ],
)
def test_a_node_is_ready_by_its_condition(node, ready):
    assert health.is_ready(node) is ready
