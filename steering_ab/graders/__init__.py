"""Graders: what makes a number of an answer."""
