"""Packages that only some files need."""

from importlib import import_module

__all__ = ["package"]


def package(name):
    """The package `name`, one of those that `edgeaccel[models]` brings.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed; a note says how to get it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        error.add_note("pip install 'edgeaccel[models]' brings what this file needs")
        raise
