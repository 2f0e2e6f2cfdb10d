"""`python -m dreambooth_operator`: the operator, in a cluster by its service account, else by KUBECONFIG."""

import asyncio
import gc
import logging
import os
import sys

from dreambooth_operator.app import run
from dreambooth_operator.settings import MissingSetting, from_env


def main() -> int:
    """Run until SIGTERM. Returns the exit code."""
    try:
        settings = from_env(os.environ)
    except MissingSetting as e:
        print(e, file=sys.stderr)
        return 2
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout
    )
    # What is imported stays, and of a list's page thousands of dictionaries go at once: looking for cycles in either
    # finds nothing, and took a tenth of a restart's processor time.
    gc.freeze()
    gc.set_threshold(100_000)
    asyncio.run(run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
