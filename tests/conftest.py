"""Order of the whole run: what needs no cluster first, what takes the cluster down last."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests, then cluster tests, then those that kill the cluster; otherwise the order stays."""

    def stage(item: pytest.Item) -> int:
        return 2 if item.get_closest_marker("local_lifecycle") else 1 if item.get_closest_marker("cluster") else 0

    items.sort(key=stage)
