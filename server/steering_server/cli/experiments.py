"""The experiments of a server, from its settings."""

from platformdirs import user_state_path

from steering_server.config import ServerSettings
from steering_server.experiments.database import Database, parse_database_url, sqlite_url
from steering_server.experiments.live import Experiments

_FILE = "experiments.sqlite"


def open_experiments(settings: ServerSettings) -> Experiments:
    """Return the experiments in the database of ``settings``. It is not opened yet, and need not be reachable.

    Raises:
        ConfigError: its URL cannot be read, or its driver is not installed.
    """
    given = settings.database_url
    url = sqlite_url(user_state_path("steering-server") / _FILE) if given is None else given
    return Experiments(Database(parse_database_url(url)))
