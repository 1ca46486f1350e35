"""Exceptions of this package.

    ABError
    ├── StatisticsError      numbers that a statistic is not defined for
    ├── DatasetError         the data set cannot be read, or none of its lines can be used
    ├── GraderError          there is no such grader, it cannot be used here, or it does not suit an item
    ├── RequirementError     a requirement cannot be read, or names what was not compared
    ├── RunError             the run's folder cannot be used, or belongs to another run
    └── AskingError          the arms cannot be asked: no such arm, no answers from the server

Messages are shown to users: they name the field, the value that was given and what is allowed.
"""


class ABError(Exception):
    """Base of all errors raised by ``steering_ab``."""


class StatisticsError(ABError, ValueError):
    """A statistic is not defined for these numbers."""


class DatasetError(ABError):
    """The data set cannot be read, or none of its lines can be used."""


class GraderError(ABError):
    """There is no such grader, it cannot be used here, or it does not suit an item."""


class RequirementError(ABError):
    """A requirement cannot be read, or names an arm, tag or grader that was not compared."""


class RunError(ABError):
    """The folder of a run cannot be used, or it belongs to a run with other settings."""


class AskingError(ABError):
    """The arms cannot be asked: one of them does not exist, or the server does not answer."""
