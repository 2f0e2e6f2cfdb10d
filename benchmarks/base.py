"""Does the example base draw what it is asked for? python benchmarks/base.py

200 pictures of "a photo of a <class> <scene>", named by the world's judge (`examples/world/judge.py`); one JSON object.
"""

import json
import subprocess
import sys
from pathlib import Path

from timed.report import host, tell

ROOT = Path(__file__).parents[1]
GOAL = 0.9


def main() -> None:
    """Print the figures, the machine and the goal."""
    command = [sys.executable, "examples/world/judge.py", "--base", "examples/base", "--pictures", "200"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    value = figures["accuracy_both"]
    goals = {"class and scene named rightly": {"value": value, "goal": GOAL, "met": value >= GOAL}}
    tell({**figures, "machine": host(), "goals": goals})


if __name__ == "__main__":
    main()
