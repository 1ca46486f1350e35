"""The tables of experiments. Migrations make them; tests compare the two.

Times are seconds of Unix time. Arms are stored by their place in the experiment.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

# Names that do not depend on the database, so that later migrations can change what they name.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up in columns of the type INTEGER alone


def _of_experiment() -> "Column[int]":
    return Column("experiment_id", ForeignKey("experiments.id"), nullable=False)


experiments = Table(
    "experiments",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("model", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("requests", String(16), nullable=False),
    Column("definition", JSON, nullable=False),
    Column("secret", LargeBinary(32), nullable=False),  # signs exposure ids
    Column("period", Integer, nullable=False),
    Column("version", Integer, nullable=False),  # counts changes, so that one made on an old state is noticed
    Column("created_at", Double, nullable=False),
)
# Only one experiment can have the requests that name none.
Index(
    "ix_experiments_running_all",
    experiments.c.model,
    unique=True,
    sqlite_where=text("state = 'running' AND requests = 'all'"),
    postgresql_where=text("state = 'running' AND requests = 'all'"),
)

changes = Table(
    "experiment_changes",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    _of_experiment(),
    Column("at", Double, nullable=False),
    Column("changed_by", String(64)),  # the name of the API key; null on a server without keys
    Column("action", String(16), nullable=False),
    Column("details", JSON, nullable=False),
)
Index("ix_experiment_changes_experiment_id", changes.c.experiment_id)

periods = Table(
    "experiment_periods",
    metadata,
    Column("experiment_id", ForeignKey("experiments.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("weights", JSON, nullable=False),
    Column("at", Double, nullable=False),
)

exposures = Table(
    "exposures",
    metadata,
    Column("id", String(48), primary_key=True),
    _of_experiment(),
    Column("arm", SmallInteger, nullable=False),
    Column("period", Integer, nullable=False),
    Column("unit", LargeBinary(8), nullable=False),
    Column("at", Double, nullable=False),
    Column("latency", Double),
    Column("time_to_first_token", Double),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("finish_reason", String(16), nullable=False),
    Column("failed", Boolean, nullable=False),
    Column("profiles", JSON, nullable=False),  # content hashes
    Column("prompt", Text),
    Column("answer", Text),
)
Index("ix_exposures_experiment_id", exposures.c.experiment_id)

outcomes = Table(
    "outcomes",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    _of_experiment(),
    Column("key", String(200), nullable=False),
    Column("exposure", String(48), nullable=False),
    Column("arm", SmallInteger, nullable=False),
    Column("period", Integer, nullable=False),
    Column("unit", LargeBinary(8), nullable=False),
    Column("metric", String(64), nullable=False),
    Column("value", Double, nullable=False),
    Column("at", Double, nullable=False),
    UniqueConstraint("experiment_id", "key"),
)

lost_exposures = Table(
    "lost_exposures",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    _of_experiment(),
    Column("at", Double, nullable=False),
    Column("number", Integer, nullable=False),
)
