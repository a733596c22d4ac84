"""Cycle models: how long things take, from shapes alone."""
