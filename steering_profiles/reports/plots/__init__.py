"""The plots of a report. Each module draws a :class:`matplotlib.figure.Figure`; :mod:`.style` makes SVG of it."""
