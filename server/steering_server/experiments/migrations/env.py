"""Alembic's environment: it migrates on the connection that :mod:`steering_server.experiments.migrating` gives it."""

from alembic import context

from steering_server.experiments.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
