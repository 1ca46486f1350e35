"""Experiments on live traffic: requests are assigned to arms, exposures and outcomes stored, and arms compared."""
