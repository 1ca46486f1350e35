"""Availability of the Hugging Face hub, checked once before a model is loaded from it."""

from typing import Any, cast

from huggingface_hub import model_info
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

TIMEOUT = 10.0
"""Timeout of the hub's answer, in seconds."""

# HfHubHTTPError derives from the error of the HTTP library, which differs between versions of huggingface_hub.
_NO_ANSWER = (cast("type[Exception]", HfHubHTTPError.__bases__[0]), OfflineModeIsEnabled)


def hub_options(model: str) -> dict[str, Any]:
    """Return the keyword arguments with which transformers loads ``model`` from the hub.

    If the hub does not answer, they restrict loading to downloaded files. Otherwise transformers would retry each file
    six times, which takes from half a minute to minutes.
    """
    try:
        model_info(model, timeout=TIMEOUT)
    except HfHubHTTPError as exc:
        # A refusal is reported by loading; status 500 and above means that the hub is unavailable.
        return {"local_files_only": True} if exc.response.status_code >= 500 else {}
    except HFValidationError:
        return {}  # transformers reports it
    except _NO_ANSWER:
        return {"local_files_only": True}
    return {}
