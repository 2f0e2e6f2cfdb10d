"""When a canary is bad."""

import pytest

from dreambooth_api.routes import BOUNDS, Traffic
from dreambooth_api.serving import Analysis
from dreambooth_operator.analysis import FEW, Fault, failure, quantile


def durations(**by_index):
    found = [0] * (len(BOUNDS) + 1)
    for index, count in by_index.items():
        found[int(index[1:])] = count
    return found


def test_a_quantile_lies_within_its_bucket():
    assert quantile(durations(), 0.95) is None
    assert quantile(durations(_3=100), 0.95) == pytest.approx(0.25 + 0.25 * 0.95)
    assert quantile(durations(_0=90, _4=10), 0.95) == pytest.approx(0.75)
    assert quantile(durations(_0=100), 0.95) == pytest.approx(0.0475)


def test_what_is_beyond_the_last_bound_counts_as_it():
    assert quantile(durations(_12=1), 0.95) == BOUNDS[-1]


@pytest.mark.parametrize(
    ("requests", "errors", "bucket", "over", "bad"),
    [
        (0, 0, 0, True, None),
        (100, 1, 3, False, None),
        (100, 2, 3, False, Fault.ERRORS),
        (100, 0, 7, False, Fault.DURATION),
        (FEW - 1, FEW - 1, 3, False, None),
        (FEW - 1, FEW - 1, 3, True, Fault.ERRORS),
        (1, 0, 7, True, Fault.DURATION),
    ],
)
def test_good_or_bad(requests, errors, bucket, over, bad):
    seen = Traffic(requests=requests, errors=errors, durations=durations(**{f"_{bucket}": requests}))
    found = failure(seen, Analysis(max_error_rate=0.01, max_p95_seconds=1.5), over)
    assert (found and found.fault) == bad
    assert found is None or str(requests) in found.text


def test_without_a_limit_no_duration_is_too_long():
    seen = Traffic(requests=50, errors=0, durations=durations(_12=50))
    assert failure(seen, Analysis(), True) is None
