"""What can be exported, and where to: known without a model; no torch."""

from pathlib import Path

from steering_profiles.composition import ProfileAtStrength, Steering
from steering_profiles.effective import effective
from steering_profiles.errors import ExportError
from steering_profiles.schema import strength_text


def require_carryable(applied: ProfileAtStrength) -> None:
    """See that a profile, at its strength, is something that weights can express.

    Raises:
        ExportError: it is not; the message names what stands in the way.
    """
    # In the type that tells most factors from 1: which one the weights have is not known yet.
    changed = effective(Steering((applied,)), "float64")
    beyond = []
    if changed.self_only_attention:
        beyond.append("self-only attention, which replaces what the final layer's attention computes")
    if changed.intercept_scale:
        beyond.append("the intercept, which is subtracted from the residual stream and scales nothing")
    if beyond:
        raise ExportError(
            f"profile {applied.profile.name!r} cannot be exported: only scales of heads and neurons can be carried by "
            f"weights, and it has {'; and '.join(beyond)}"
        )
    if not changed.heads and not changed.neurons:
        raise ExportError(
            f"profile {applied.profile.name!r} changes nothing at strength {strength_text(applied.strength)}: "
            "nothing to export"
        )


def require_empty(folder: Path) -> None:
    """See that nothing would be overwritten: ``folder`` must be empty, or not exist.

    Raises:
        ExportError: something is there, or it cannot be looked at.
    """
    try:
        if folder.is_dir():
            if any(folder.iterdir()):
                raise ExportError(f"{str(folder)!r} is not empty; nothing is overwritten, so name a new folder")
        elif folder.exists() or folder.is_symlink():
            raise ExportError(f"{str(folder)!r} is there already and is not a folder; name a new one")
    except OSError as exc:
        raise unwritable(folder, exc) from exc


def unwritable(folder: Path, exc: OSError) -> ExportError:
    """Return the error that says why ``folder`` cannot be written."""
    return ExportError(f"{str(folder)!r} cannot be written: {exc.strerror or exc}")
