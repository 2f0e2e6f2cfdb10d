"""A real one-node Kubernetes on Linux without Docker, and the images that run on it.

The law of this package: standard library only, for it runs with the system's Python before any virtual environment
exists. Decisions (what to run, with which flags; what is missing; which rule is ours) are pure functions; `commands.py`
runs programs, `processes.py` starts and ends daemons, `api.py` talks to the API server. Nothing is done on import.
"""

from dreambooth_local.capability import capable

__all__ = ["capable"]
