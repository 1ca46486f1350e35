"""Is the Hugging Face hub there? Asked once, before anything is loaded from it."""

from typing import Any, cast

from huggingface_hub import model_info
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

TIMEOUT = 10.0
"""Seconds that the hub has to answer."""

# The hub's error derives from that of the HTTP library beneath it, which differs between huggingface_hub's versions.
_NO_ANSWER = (cast("type[Exception]", HfHubHTTPError.__bases__[0]), OfflineModeIsEnabled)


def hub_options(model: str) -> dict[str, Any]:
    """Return what transformers must be told to load ``model`` from the hub.

    That is nothing, or, where no answer comes from the hub, to use what was downloaded before: left to itself it asks
    six times for each file, which takes from half a minute to minutes.
    """
    try:
        model_info(model, timeout=TIMEOUT)
    except HfHubHTTPError as exc:
        # Refused, which loading will find out too; or the hub itself is in trouble.
        return {"local_files_only": True} if exc.response.status_code >= 500 else {}
    except HFValidationError:
        return {}  # transformers has the words for it
    except _NO_ANSWER:
        return {"local_files_only": True}
    return {}
