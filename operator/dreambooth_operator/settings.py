"""What the operator is told by its environment."""

import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from dreambooth_api import names


class MissingSetting(ValueError):
    """A variable that must be set is not."""


@dataclass(frozen=True)
class Settings:
    """All settings; `from_env` names the variables."""

    trainer_image: str
    server_image: str
    pull_policy: str = "IfNotPresent"
    # Empty: every namespace of the cluster.
    namespaces: tuple[str, ...] = ()
    # Nodes' heartbeats are the whole cluster's: Roles in some namespaces do not show them.
    watch_nodes: bool = False
    # Where people reach MLflow, for the links in a status; empty: what the trainer says.
    mlflow_url: str = ""
    # What pods' overrides may ask for beyond their namespace: words of `allowances`.
    pod_allowances: frozenset[str] = frozenset()
    # Namespaces that have the claim `dreambooth-cache`, in which servers keep what they download.
    cached_namespaces: frozenset[str] = frozenset()
    # Where people reach the gateway, and the file with the token by which gateways are known; without a URL there is
    # no gateway: then no pools, no keys, no canaries, and nothing goes to 0 replicas.
    gateway_url: str = ""
    gateway_token_file: str = ""
    # Autoscalers go by what gateways have in flight, as an external metric.
    metrics_api: bool = False
    log_level: str = "INFO"
    health_port: int = names.OPERATOR_HEALTH_PORT
    metrics_port: int = names.OPERATOR_METRICS_PORT
    routes_port: int = names.OPERATOR_ROUTES_PORT
    # How many objects are reconciled at the same time.
    workers: int = 8
    # Namespace and name of the Lease by which replicas choose the one that works, and what this one is called there.
    # Without a namespace there is no election: never run two such operators on the same namespaces.
    lease_namespace: str = ""
    lease_name: str = names.MANAGER
    identity: str = ""


def from_env(env: Mapping[str, str]) -> Settings:
    """Settings from environment variables. Raises MissingSetting."""

    def required(name: str) -> str:
        if not env.get(name):
            raise MissingSetting(f"the environment variable {name} must be set")
        return env[name]

    namespaces = _words(env.get("DREAMBOOTH_NAMESPACES", ""))
    return Settings(
        trainer_image=required(names.ENV_IMAGE),
        server_image=required("DREAMBOOTH_SERVER_IMAGE"),
        pull_policy=env.get("DREAMBOOTH_IMAGE_PULL_POLICY") or "IfNotPresent",
        namespaces=namespaces,
        watch_nodes=not namespaces,
        pod_allowances=frozenset(_words(env.get("DREAMBOOTH_POD_ALLOWANCES", ""))),
        mlflow_url=env.get("DREAMBOOTH_MLFLOW_URL", "").rstrip("/"),
        cached_namespaces=frozenset(_words(env.get("DREAMBOOTH_CACHED_NAMESPACES", ""))),
        gateway_url=env.get("DREAMBOOTH_GATEWAY_URL", "").rstrip("/"),
        gateway_token_file=env.get("DREAMBOOTH_GATEWAY_TOKEN_FILE", ""),
        metrics_api=env.get("DREAMBOOTH_METRICS_API", "").lower() == "true",
        log_level=env.get("DREAMBOOTH_LOG_LEVEL") or "INFO",
        health_port=int(env.get("DREAMBOOTH_HEALTH_PORT") or names.OPERATOR_HEALTH_PORT),
        metrics_port=int(env.get("DREAMBOOTH_METRICS_PORT") or names.OPERATOR_METRICS_PORT),
        routes_port=int(env.get("DREAMBOOTH_ROUTES_PORT") or names.OPERATOR_ROUTES_PORT),
        workers=int(env.get("DREAMBOOTH_WORKERS") or 8),
        lease_namespace=env.get("DREAMBOOTH_LEASE_NAMESPACE", ""),
        lease_name=env.get("DREAMBOOTH_LEASE_NAME") or names.MANAGER,
        # A name of its own each time: one that was restarted must not take itself for its predecessor, whose requests
        # may still be under way.
        identity=f"{env.get('HOSTNAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}",
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))
