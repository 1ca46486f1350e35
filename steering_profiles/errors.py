"""Exceptions of this library.

    SteeringError
    ├── ProfileError
    │   ├── ProfileNotFound      no profile of that name, or no such file
    │   ├── ProfileFormatError   the file is not a valid profile
    │   ├── ProfileMismatch      the profile was made for another model
    │   ├── GateError            profiles with different gates, or a gate that cannot be applied
    │   └── ConditionError       a profile with a condition where the tokens are not known
    ├── ModelError
    │   ├── ModelLoadError       the model cannot be loaded from the given source
    │   └── UnknownArchitecture  the model's architecture has no known anatomy
    ├── TaskError                the task does not suit the model, or its data cannot be used
    ├── FitError                 data that do not determine the fitted values, or an invalid setting of the fit
    ├── ExportError              the format cannot express the profile, or the export cannot be written
    ├── EvaluationError          the measurement cannot be made on this machine
    ├── ReportError              the plots of a report cannot be drawn
    ├── StrengthError            the strength is not a number in the allowed range
    ├── LabelError               the text does not name profiles and their strength
    ├── ComponentError           the text does not name a component of the profile
    └── HookError                a steering hook did not run in a forward pass that needed it

Messages are shown to users on the terminal and in HTTP responses: they name the value that was given and what is
allowed.
"""


class SteeringError(Exception):
    """Base of all errors raised by ``steering_profiles``."""


class ProfileError(SteeringError):
    """Base of errors about a profile."""


class ProfileNotFound(ProfileError):
    """No profile of this name, or no file at this path."""


class ProfileFormatError(ProfileError):
    """The file is not a valid profile of a supported format version. ``field`` is the first invalid field, if known."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ProfileMismatch(ProfileError):
    """The profile was made for another model."""


class GateError(ProfileError):
    """The gate cannot be applied: composed profiles have different gates, or only one forward pass would be made."""


class ConditionError(ProfileError):
    """A condition cannot be tested: the tokens, or their text, are not known where the profile is applied."""


class ModelError(SteeringError):
    """Base of errors about a model."""


class ModelLoadError(ModelError):
    """The model cannot be loaded from the given source."""


class UnknownArchitecture(ModelError):
    """The model's architecture has no known anatomy. The anatomy is never guessed."""


class TaskError(SteeringError):
    """The task does not suit the model, or its data cannot be used."""


class FitError(SteeringError):
    """The data do not determine the fitted values, or a setting of the fit is invalid."""


class ExportError(SteeringError):
    """The export format cannot express the profile or the model, or the folder cannot be written."""


class EvaluationError(SteeringError):
    """The measurement cannot be made here: its data are missing, or it cannot be made safely."""


class ReportError(SteeringError):
    """The plots of a report cannot be drawn, since matplotlib is not installed."""


class StrengthError(SteeringError):
    """The strength is not a finite number in the allowed range."""


class LabelError(SteeringError):
    """The text does not name profiles and their strength as ``a+b@0.5`` does."""


class ComponentError(SteeringError):
    """The text does not name a component that the profile changes, as ``L11H2`` does."""


class HookError(SteeringError):
    """A steering hook did not run in a forward pass that needed it, so the output was not steered."""
