"""Names of execution providers."""

import pytest

from onnxpress.calibration.providers import available_providers, provider_name
from onnxpress.rewriter.errors import ConfigError


def test_short_names_of_providers():
    assert provider_name("cpu") == provider_name("CPU") == "CPUExecutionProvider"
    assert provider_name("cuda") == "CUDAExecutionProvider"
    assert provider_name("OwnExecutionProvider") == "OwnExecutionProvider"
    assert "CPUExecutionProvider" in available_providers()
    with pytest.raises(ConfigError, match="provider 'gpu' is unknown; give one of cpu, cuda"):
        provider_name("gpu")
