"""The first tables: experiments, their changes and periods, exposures and outcomes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_RUNNING_ALL = sa.text("state = 'running' AND requests = 'all'")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "experiments",
        sa.Column("id", _ID, autoincrement=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("requests", sa.String(16), nullable=False),
        sa.Column("definition", sa.JSON, nullable=False),
        sa.Column("secret", sa.LargeBinary(32), nullable=False),
        sa.Column("period", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_experiments"),
        sa.UniqueConstraint("name", name="uq_experiments_name"),
    )
    op.create_index(
        "ix_experiments_running_all",
        "experiments",
        ["model"],
        unique=True,
        sqlite_where=_RUNNING_ALL,
        postgresql_where=_RUNNING_ALL,
    )
    op.create_table(
        "experiment_changes",
        sa.Column("id", _ID, autoincrement=True),
        _of_experiment("experiment_changes"),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("changed_by", sa.String(64)),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_experiment_changes"),
    )
    op.create_index("ix_experiment_changes_experiment_id", "experiment_changes", ["experiment_id"])
    op.create_table(
        "experiment_periods",
        _of_experiment("experiment_periods"),
        sa.Column("number", sa.Integer, autoincrement=False),
        sa.Column("weights", sa.JSON, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("experiment_id", "number", name="pk_experiment_periods"),
    )
    op.create_table(
        "exposures",
        sa.Column("id", sa.String(48)),
        _of_experiment("exposures"),
        sa.Column("arm", sa.SmallInteger, nullable=False),
        sa.Column("period", sa.Integer, nullable=False),
        sa.Column("unit", sa.LargeBinary(8), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("latency", sa.Double),
        sa.Column("time_to_first_token", sa.Double),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        sa.Column("finish_reason", sa.String(16), nullable=False),
        sa.Column("failed", sa.Boolean, nullable=False),
        sa.Column("profiles", sa.JSON, nullable=False),
        sa.Column("prompt", sa.Text),
        sa.Column("answer", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_exposures"),
    )
    op.create_index("ix_exposures_experiment_id", "exposures", ["experiment_id"])
    op.create_table(
        "outcomes",
        sa.Column("id", _ID, autoincrement=True),
        _of_experiment("outcomes"),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("exposure", sa.String(48), nullable=False),
        sa.Column("arm", sa.SmallInteger, nullable=False),
        sa.Column("period", sa.Integer, nullable=False),
        sa.Column("unit", sa.LargeBinary(8), nullable=False),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outcomes"),
        sa.UniqueConstraint("experiment_id", "key", name="uq_outcomes_experiment_id"),
    )
    op.create_table(
        "lost_exposures",
        sa.Column("id", _ID, autoincrement=True),
        _of_experiment("lost_exposures"),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lost_exposures"),
    )


def _of_experiment(table: str) -> "sa.Column[int]":
    key = sa.ForeignKey("experiments.id", name=f"fk_{table}_experiment_id")
    return sa.Column("experiment_id", _ID, key, nullable=False)
