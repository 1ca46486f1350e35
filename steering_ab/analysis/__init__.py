"""What the grades of a run show: rates, differences with intervals and tests, and what the design could show."""
