"""`make demo`: python -m dreambooth_demo [--out demo]"""

import argparse
import os
import sys
from pathlib import Path

from dreambooth_demo import laptop
from dreambooth_demo.cluster import find_cluster
from dreambooth_demo.kube import KubeError
from dreambooth_demo.platform import ForeignInstallation
from dreambooth_demo.steps import Steps
from dreambooth_demo.story import tell
from dreambooth_demo.watch import JobFailed


def main() -> int:
    """Run the demo on a cluster if there can be one, else on this machine alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where sheet.png and summary.json go")
    out = parser.parse_args().out
    root = Path.cwd()
    out.mkdir(parents=True, exist_ok=True)
    steps = Steps()
    try:
        kube, reasons = find_cluster(steps, os.environ)
        if kube is None:
            return laptop.run(steps, root, out, reasons)
        tell(steps, kube, root, out)
    except (ForeignInstallation, KubeError, JobFailed) as e:
        print(f"\nmake demo: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
