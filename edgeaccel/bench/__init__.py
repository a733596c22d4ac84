"""Figures: `python -m edgeaccel.bench NAME` measures, prints a table, and writes JSON or a plot.

A bench is a module here with a docstring, `measure(progress) -> list of Record` and `plot(records, axes)`.
"""
