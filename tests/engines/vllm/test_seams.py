"""A vLLM whose functions differ is refused by name and version."""

import pytest

from steering_server.engines.vllm.plugin.seams import Seam, require_equal, require_known_version
from steering_server.errors import ConfigError


@pytest.mark.parametrize("version", ["0.32.0", "0.33.1", "0.32.0+cpu", "0.33.0rc1"])
def test_known_versions_are_accepted(version: str) -> None:
    require_known_version(version)


@pytest.mark.parametrize("version", ["0.31.9", "0.34.0", "1.0.0", "dev"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(ConfigError, match=f"vLLM is {version}; .* from 0.32 on and below 0.34"):
        require_known_version(version)


def test_a_function_with_other_parameters_is_named() -> None:
    require_equal((Seam("json", "JSONDecoder.decode", ("s",)),), "1.2")
    with pytest.raises(ConfigError) as refused:
        require_equal((Seam("json", "JSONDecoder.decode", ("text",)), Seam("json", "gone", ())), "1.2")
    assert "vLLM 1.2 differs" in str(refused.value)
    assert "json.JSONDecoder.decode takes (s, _w), not (text)" in str(refused.value)
    assert "json.gone is missing" in str(refused.value)
