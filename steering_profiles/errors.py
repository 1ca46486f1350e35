"""Every error that this library raises, as one tree.

    SteeringError
    ├── ProfileError
    │   ├── ProfileNotFound      no profile of that name, or no such file
    │   ├── ProfileFormatError   the file is not a valid profile
    │   ├── ProfileMismatch      the profile was made for another model
    │   └── GateError            profiles whose gates differ, or a gate that nobody looks at
    ├── ModelError
    │   ├── ModelLoadError       the model cannot be loaded from where it was said to be
    │   └── UnknownArchitecture  no anatomy is known for the model's architecture
    ├── TaskError                a task does not suit the model, or its data cannot be used
    ├── FitError                 data that do not determine what is to be fitted, or a setting it cannot be fitted with
    ├── ExportError              a profile or a model that the asked form cannot carry, or nowhere to write it
    ├── EvaluationError          a measurement that cannot be made here
    ├── ReportError              the plots of a report cannot be drawn
    ├── StrengthError            a strength that is not a number in the allowed range
    └── HookError                a steering hook did not fire, or fired where it should not have

Messages are written for the person who reads them on a terminal or in an HTTP response: what was
given, what is allowed.
"""


class SteeringError(Exception):
    """Base of all errors raised by ``steering_profiles``."""


class ProfileError(SteeringError):
    """Something is wrong with a profile."""


class ProfileNotFound(ProfileError):
    """No profile of that name, or no file at that path."""


class ProfileFormatError(ProfileError):
    """A file that is not a valid profile of a format version this library reads."""


class ProfileMismatch(ProfileError):
    """A profile that was made for another model than the one it should steer."""


class GateError(ProfileError):
    """A gate that cannot be kept: composed profiles have different ones, or only one forward pass would be made."""


class ModelError(SteeringError):
    """Something is wrong with a model."""


class ModelLoadError(ModelError):
    """A model that cannot be loaded from where it was said to be."""


class UnknownArchitecture(ModelError):
    """A model whose architecture has no known anatomy. It is refused, never guessed."""


class TaskError(SteeringError):
    """A task that does not suit the model, or whose data cannot be used."""


class FitError(SteeringError):
    """Data that do not determine what is to be fitted, or a setting that it cannot be fitted with."""


class ExportError(SteeringError):
    """A profile or a model that the asked form of export cannot carry, or a folder it cannot be written to."""


class EvaluationError(SteeringError):
    """A measurement that cannot be made here: its data are not there, or it cannot be made safely."""


class ReportError(SteeringError):
    """The plots of a report cannot be drawn, since matplotlib is not installed."""


class StrengthError(SteeringError):
    """A strength that is not a finite number in the allowed range."""


class HookError(SteeringError):
    """A steering hook that did not fire when it should have. Never ignored: the output was not steered."""
