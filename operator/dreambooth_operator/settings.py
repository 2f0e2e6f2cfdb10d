"""What the operator is told by its environment."""

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
    # Where people reach MLflow, for the links in a status; empty: what the trainer says.
    mlflow_url: str = ""
    log_level: str = "INFO"
    health_port: int = names.OPERATOR_HEALTH_PORT
    metrics_port: int = names.OPERATOR_METRICS_PORT
    # How many objects are reconciled at the same time.
    workers: int = 8


def from_env(env: Mapping[str, str]) -> Settings:
    """Settings from environment variables. Raises MissingSetting."""

    def required(name: str) -> str:
        if not env.get(name):
            raise MissingSetting(f"the environment variable {name} must be set")
        return env[name]

    return Settings(
        trainer_image=required(names.ENV_IMAGE),
        server_image=required("DREAMBOOTH_SERVER_IMAGE"),
        pull_policy=env.get("DREAMBOOTH_IMAGE_PULL_POLICY") or "IfNotPresent",
        namespaces=tuple(filter(None, (n.strip() for n in env.get("DREAMBOOTH_NAMESPACES", "").split(",")))),
        mlflow_url=env.get("DREAMBOOTH_MLFLOW_URL", "").rstrip("/"),
        log_level=env.get("DREAMBOOTH_LOG_LEVEL") or "INFO",
        health_port=int(env.get("DREAMBOOTH_HEALTH_PORT") or names.OPERATOR_HEALTH_PORT),
        metrics_port=int(env.get("DREAMBOOTH_METRICS_PORT") or names.OPERATOR_METRICS_PORT),
        workers=int(env.get("DREAMBOOTH_WORKERS") or 8),
    )
