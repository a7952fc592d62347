"""Each contract test runs on the twin, on Debian's Redis and on the embedded Valkey."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.stores import Stores, memory_stores, redis_stores

OpenStores = Callable[..., Stores]


@pytest.fixture(params=["memory", "redis", "valkey"])
def open_stores(request: pytest.FixtureRequest, prefix: str) -> OpenStores:
    """Opens stores over one state per test; keyword arguments are limits and kept counts."""
    if request.param == "memory":
        return memory_stores
    url = request.getfixturevalue(f"{request.param}_url")

    def opened(*args: Any, **kwargs: Any) -> Stores:
        return redis_stores(url, prefix, *args, **kwargs)

    return opened


@pytest.fixture
def stores(open_stores: OpenStores) -> Stores:
    return open_stores()
