"""Parts that stand in a design many times."""

from amaranth.hdl import ResetInserter

__all__ = ["repeated"]


def repeated(platform, component, *, key=None, clear=None):
    """What `elaborate` makes a submodule of where a component, of type and `key`, stands many times.

    In Amaranth's simulator that is the component. When Verilog is emitted it is an instance of a module that is
    elaborated and written once, which saves most of the time and of the text. The key is all that the component is
    built from, its `config` by default. `clear` resets it like the reset of its domain; `ResetInserter` does not reach
    into an instance.
    """
    if hasattr(platform, "repeated"):
        return platform.repeated(component, component.config if key is None else key, clear)
    return component if clear is None else ResetInserter(clear)(component)
