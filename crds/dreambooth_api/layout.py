"""Where things stand below the store's prefix."""

from dreambooth_api.artifact import short_digest


def prior_prefix(key: str) -> str:
    """Class images of one base, prompt, sampler, resolution and seed."""
    return f"priors/{short_digest(key)}"


def latents_prefix(key: str) -> str:
    """Latents of some pictures under one VAE, resolution and crop rule."""
    return f"latents/{short_digest(key)}"


def embeddings_prefix(key: str) -> str:
    """Captions as a base's frozen text encoders read them."""
    return f"embeddings/{short_digest(key)}"


def job_prefix(namespace: str, name: str, uid: str) -> str:
    """What belongs to one job alone; `PREPARED` of `names` stands in it."""
    return f"jobs/{namespace}/{name}/{uid}"


def checkpoints_prefix(namespace: str, name: str, uid: str) -> str:
    """All checkpoints of one job."""
    return f"{job_prefix(namespace, name, uid)}/checkpoints"


def checkpoint_prefix(namespace: str, name: str, uid: str, step: int) -> str:
    """The checkpoint of one step."""
    return f"{checkpoints_prefix(namespace, name, uid)}/step-{step:06d}"


def artifact_prefix(namespace: str, name: str, digest: str) -> str:
    """One published artifact."""
    return f"models/{namespace}/{name}/{short_digest(digest)}"
