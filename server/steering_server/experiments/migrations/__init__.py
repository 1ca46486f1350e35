"""Alembic's migrations of the experiments' tables."""
