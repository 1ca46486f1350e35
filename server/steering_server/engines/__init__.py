"""Engines, one package each. They import neither the API nor each other."""
