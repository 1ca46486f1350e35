"""Checks of an export that need no model: the profile and the folder. No torch."""

from pathlib import Path

from steering_profiles.composition import ProfileAtStrength, Steering
from steering_profiles.effective import effective
from steering_profiles.errors import ExportError
from steering_profiles.fields import strength_text


def require_exportable(applied: ProfileAtStrength) -> None:
    """Check that weights can express the profile at its strength.

    Raises:
        ExportError: they cannot; the message names the effects that prevent it.
    """
    # The dtype of the weights is not known yet; in float64 the fewest factors round to 1.
    changed = effective(Steering((applied,)), "float64")
    inexpressible = []
    if conditions := Steering((applied,)).conditions:
        one, it = ("a condition", "it") if len(conditions) == 1 else (f"{len(conditions)} conditions", "them")
        tested = "which is" if len(conditions) == 1 else "which are"
        inexpressible.append(
            f"{one} ({'; '.join(map(str, conditions))}), {tested} tested token by token (--everywhere leaves {it} out)"
        )
    if changed.self_only_attention:
        inexpressible.append("self-only attention, which replaces the output of the final layer's attention")
    if changed.intercept_scale:
        inexpressible.append("an intercept, which is subtracted from the residual stream")
    if inexpressible:
        raise ExportError(
            f"profile {applied.profile.name!r} cannot be exported: weights can express only scales of heads and "
            f"neurons at every position, and it has {'; and '.join(inexpressible)}"
        )
    if not changed.heads and not changed.neurons:
        raise ExportError(
            f"profile {applied.profile.name!r} changes nothing at strength {strength_text(applied.strength)}: "
            "there is nothing to export"
        )


def require_empty(folder: Path) -> None:
    """Check that ``folder`` is empty or does not exist, so that nothing is overwritten.

    Raises:
        ExportError: it is not empty, or cannot be read.
    """
    try:
        if folder.is_dir():
            if any(folder.iterdir()):
                raise ExportError(f"{str(folder)!r} is not empty; choose a new folder, because nothing is overwritten")
        elif folder.exists() or folder.is_symlink():
            raise ExportError(f"{str(folder)!r} exists and is not a folder; choose a new folder")
    except OSError as exc:
        raise unwritable(folder, exc) from exc


def unwritable(folder: Path, exc: OSError) -> ExportError:
    """Return the error for a folder that cannot be written."""
    return ExportError(f"{str(folder)!r} cannot be written: {exc.strerror or exc}")
