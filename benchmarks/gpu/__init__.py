"""Benchmarks on a GPU, and the archive that takes them to a machine without network."""
