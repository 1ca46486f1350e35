"""The database of experiments: SQLite in a file, or PostgreSQL."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError

from steering_server.errors import ConfigError, Unavailable
from steering_server.experiments.migrating import migrate

INSTALL_POSTGRES = "pip install 'steering-server[postgres]'"
FORMS = "sqlite:////FOLDER/FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"
_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_BUSY_SECONDS = 10
_CONNECT_SECONDS = 5
_STATEMENT_MILLISECONDS = 60_000
_CONNECTIONS = 5
_BEGIN = "steering_begin"

_log = structlog.get_logger("steering_server.experiments")


def parse_database_url(given: str) -> URL:
    """Return the URL of a database, with the driver that is used for it.

    Raises:
        ConfigError: it is no URL of SQLite or PostgreSQL. The message does not show it, since it may hold a password.
    """
    try:
        url = make_url(given)
    except (ArgumentError, ValueError) as exc:
        raise ConfigError(f"database url cannot be read; it must be {FORMS}") from exc
    name = url.drivername
    if name in _DRIVERS:
        url = url.set(drivername=_DRIVERS[name])
    elif name not in _DRIVERS.values():
        raise ConfigError(f"database url is for {name}; it must be {FORMS}")
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise ConfigError(f"database url names no file, so everything would be lost; it must be {FORMS}")
        if url.host:
            raise ConfigError(f"database url is for the host {url.host}, but SQLite has none; it must be {FORMS}")
    else:
        _require_psycopg()
    return url


def sqlite_url(file: Path) -> str:
    """Return the URL of the SQLite database in ``file``."""
    return URL.create("sqlite", database=str(file)).render_as_string()


class Database:
    """Connections to the database, whose tables are made or migrated before the first of them is used.

    A database that cannot be reached is tried again with every call. All methods may be called from any thread.
    """

    def __init__(self, url: URL) -> None:
        """Use the database at ``url``, which :func:`parse_database_url` has returned. Nothing is opened yet."""
        self._url = url
        self._engine = _engine(url)
        self._is_migrated = False
        self._migrating = threading.Lock()

    @property
    def where(self) -> str:
        """The database's URL without its password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def is_there(self) -> bool:
        """Whether there is anything to read: a file that nobody has written to is not made for reading."""
        database = self._url.database
        return self._is_migrated or self._url.get_backend_name() != "sqlite" or Path(database or "").exists()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads.

        Raises:
            Unavailable: the database cannot be reached, or failed.
        """
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes. When this context is left, what was written is on the disk.

        Raises:
            Unavailable: the database cannot be reached, or failed; nothing is written.
            IntegrityError, DataError: a constraint does not hold, or a value has no place; nothing is written.
        """
        # SQLite would refuse a transaction that begins to write while another one does, rather than let it wait.
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def insert_new(self, connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
        """Insert the rows that are not there already, by the table's keys."""
        if rows:
            make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            connection.execute(make(table).on_conflict_do_nothing(), rows)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        with self._reached():
            self._migrate()
            with self._engine.connect().execution_options(**{_BEGIN: begin}) as connection, connection.begin():
                yield connection

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (IntegrityError, DataError):
            raise
        except (SQLAlchemyError, OSError) as exc:
            reason = str(exc.orig if isinstance(exc, DBAPIError) else exc).strip().partition("\n")[0]
            _log.warning("experiments_database_failed", database=self.where, reason=reason)
            raise Unavailable(
                "the database of experiments cannot be used at the moment; nothing was stored; try again later",
                code="database_unavailable",
            ) from exc

    def _migrate(self) -> None:
        if self._is_migrated:
            return
        with self._migrating:
            if not self._is_migrated:  # another thread may have done it while this one waited
                if self._url.get_backend_name() == "sqlite":
                    Path(self._url.database or "").parent.mkdir(parents=True, exist_ok=True)
                connecting = self._engine.connect().execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
                with connecting as connection, connection.begin():
                    migrate(connection)
                self._is_migrated = True


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        return create_engine(
            url,
            pool_pre_ping=True,  # a connection that the server has closed is replaced before it is used
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=_CONNECT_SECONDS,
            hide_parameters=True,  # of statements in error messages: they may hold text of users
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "options": f"-c statement_timeout={_STATEMENT_MILLISECONDS}",
                "application_name": "steering-server",
            },
        )
    engine = create_engine(
        url, connect_args={"timeout": _BUSY_SECONDS}, pool_size=_CONNECTIONS, max_overflow=0, hide_parameters=True
    )
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin as _begin_sqlite says, not where the driver thinks so
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def _require_psycopg() -> None:
    try:
        import psycopg  # noqa: F401
    except ImportError as exc:
        raise ConfigError(
            f"database url is for PostgreSQL, but its driver is not installed ({exc}): {INSTALL_POSTGRES}"
        ) from exc
