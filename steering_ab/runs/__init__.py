"""Runs: the folder that keeps answers and grades as they come, asking what is missing, and grading."""
