"""These tests run in virtual time."""

from tests.unit.virtual_loops import pytest_asyncio_loop_factories as pytest_asyncio_loop_factories
