"""What a benchmark has found, and where."""

import json
import os
import platform
from pathlib import Path
from typing import Any


def host(**more: Any) -> dict[str, Any]:
    """The machine that this runs on, with what else of it matters to a benchmark."""
    return {"cores": os.cpu_count(), "architecture": platform.machine(), "system": platform.system(), **more}


def tell(report: dict[str, Any], out: Path | None = None) -> None:
    """Print it as one JSON object, and keep that in the file `out`, if there is one."""
    text = json.dumps(report, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n")
