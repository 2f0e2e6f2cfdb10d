"""What a gateway is told, in one place."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path

from dreambooth_api.names import GATEWAY_METRICS_PORT, GATEWAY_PORT


@dataclass(frozen=True)
class Settings:
    """Everything one gateway process is told."""

    operator: str
    """URL of the operator's routes port, `http://host:port`; every address of the host is tried."""
    token_file: Path
    """The file whose content is the operator's bearer token; read anew for each report."""
    host: str = "0.0.0.0"
    port: int = GATEWAY_PORT
    metrics_port: int = GATEWAY_METRICS_PORT
    """Of `/metrics`, which names every subject and its load: no matter of clients."""
    queue: int = 256
    """Requests of one subject that may wait; one more is answered with 429."""
    hold_seconds: float = 120.0
    """How long a request may wait for a replica, seconds."""
    answer_seconds: float = 600.0
    """How long a replica may take for an answer, seconds."""
    drain_seconds: float = 5.0
    """After SIGTERM: how long requests are still accepted, seconds."""
    grace_seconds: float = 150.0
    """How long requests in flight may take to finish after that, seconds."""
    log_prompts: bool = False
    """Whether the audit log has the prompts themselves."""
    check_url: str | None = None
    """Asked whether a prompt may be drawn; None: every prompt may."""
    check_open: bool = False
    """Whether prompts are drawn while the check does not answer."""
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What the operator calls this process."""
