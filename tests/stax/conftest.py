import pytest
from jax import random


@pytest.fixture
def x1(dtype):
    """Four vectors."""
    return random.normal(random.PRNGKey(0), (4, 3), dtype)


@pytest.fixture
def x2(dtype):
    """Two others."""
    return random.normal(random.PRNGKey(1), (2, 3), dtype)
