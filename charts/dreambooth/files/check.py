"""`helm test`: every URL given must answer with a status below 400 within two minutes."""

import sys
import time
import urllib.error
import urllib.request

DEADLINE = time.monotonic() + 120


def fault(url):
    """Why `url` does not answer; None when it does."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except (urllib.error.URLError, OSError) as e:
        return e
    return None


failed = False
for url in sys.argv[1:]:
    while (reason := fault(url)) and time.monotonic() < DEADLINE:
        time.sleep(1)
    failed |= reason is not None
    print(f"{url}: {reason or 'answers'}", flush=True)
sys.exit(failed)
