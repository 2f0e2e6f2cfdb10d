"""What a benchmark has found."""

import json
from pathlib import Path
from typing import Any


def tell(report: dict[str, Any], out: Path | None) -> None:
    """Print it as one JSON object, and keep that in the file `out`, if there is one."""
    text = json.dumps(report, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n")
