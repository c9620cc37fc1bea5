"""Fixtures of the trainers' tests."""

import shutil
from typing import Any

import pytest

from tests.trainers import emulated


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The CUDA kernels, compiled for the CPU."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the kernels for the CPU")
    return dict(emulated.kernels(tmp_path_factory.mktemp("kernels")))
