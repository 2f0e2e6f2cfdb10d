"""Does the operator end in the same state whatever happens? python benchmarks/faults.py [--side-by-side 3]

A job's whole life before a real API server, once undisturbed; then once for each of the operator's writes, its process
killed (SIGKILL) when the API server has carried that write out; then under each fault of `tests/operator/stage/faults`.
One JSON object: what ended otherwise, and what ran twice.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.timed.report import host, tell  # noqa: E402
from tests.operator.stage import apiserver, faults  # noqa: E402
from tests.operator.stage.api import Api  # noqa: E402
from tests.operator.stage.driver import Driver  # noqa: E402


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Objects of a final state that differ."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


async def measure(server: apiserver.ApiServer, side_by_side: int, log: Path) -> dict[str, Any]:
    """Every run's outcome."""
    async with Api.of(server) as api, Driver.at_work(api) as driver:
        calm = await faults.undisturbed(server, api, "calm")
        slots = asyncio.Semaphore(side_by_side)

        async def outcome(run: Awaitable[dict[str, Any]]) -> tuple[list[str], float]:
            async with slots:
                begun = time.monotonic()
                try:
                    found = differences(calm.state, await run)
                except TimeoutError as e:
                    found = [f"not finished: {e}"]
                return found, round(time.monotonic() - begun, 1)

        names = [f"killed after write {n}" for n in range(calm.writes)] + [f"fault {name}" for name in faults.FAULTS]
        runs: list[Awaitable[dict[str, Any]]] = [
            faults.killed_process(server, api, f"kill-{n}", n, log) for n in range(calm.writes)
        ]
        runs += [
            faults.disturbed(server, api, f"fault-{name}", rules, calm.state) for name, rules in faults.FAULTS.items()
        ]
        found = await asyncio.gather(*map(outcome, runs))
        twice = [f"{namespace}/{name}" for (namespace, name), count in driver.started.items() if count > 1]
    outcomes = {
        name: {"differs": differs, "seconds": seconds} for name, (differs, seconds) in zip(names, found, strict=True)
    }
    return {"writes": calm.writes, "runs": outcomes, "startedTwice": twice, "driverFailures": driver.failures}


def main() -> None:
    """Print the outcomes, the machine and the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side-by-side", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, apiserver.running(audit=False) as server:
        figures = asyncio.run(measure(server, options.side_by_side, Path(folder) / "operator.log"))
    otherwise = [name for name, run in figures["runs"].items() if run["differs"]]
    goals = {
        "runs that ended otherwise": {"value": len(otherwise), "goal": 0, "met": not otherwise},
        "Jobs started twice": {"value": len(figures["startedTwice"]), "goal": 0, "met": not figures["startedTwice"]},
    }
    tell({**figures, "machine": host(), "goals": goals})


if __name__ == "__main__":
    main()
