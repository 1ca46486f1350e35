"""Migration of the database to the tables of this version."""

from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

SCRIPTS = Path(__file__).parent / "migrations"
_LOCK = 7_463_726_109  # any number, the same on every replica


class NewerDatabase(SQLAlchemyError):
    """The database was made by a newer version."""


def migrate(connection: Connection) -> None:
    """Bring the database to the newest tables, in the transaction of ``connection``. Other replicas wait.

    Raises:
        NewerDatabase: it has tables of a newer version.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise NewerDatabase(f"the database has the tables of a newer version ({current}); update steering-server")
    if current != scripts.get_current_head():
        command.upgrade(config, "head")
