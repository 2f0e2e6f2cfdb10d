"""What content is kept and recognised under: a hash of all that it follows from."""

import hashlib
import json


def key_of(*parts: object) -> str:
    """`sha256:<hex>` over `parts`, which JSON can express."""
    return "sha256:" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
