"""The pytest plugin: the fixture `ktrdr_run`."""

from __future__ import annotations

import pathlib

import pytest

from .testing import TestRun

__all__ = ["ktrdr_run"]


@pytest.fixture
def ktrdr_run(tmp_path: pathlib.Path) -> TestRun:
    """One attempt at an operation, whose data directory is `tmp_path`."""
    return TestRun(tmp_path)
