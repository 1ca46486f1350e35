"""Capacity on paper: what models of any size need and reach, from properties of the hardware; see docs/scaling.md."""
