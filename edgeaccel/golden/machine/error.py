"""What goes wrong in a machine."""

__all__ = ["Fault", "MachineError"]


class Fault(ValueError):
    """Something that an instruction asks for and cannot have.

    Parameters
    ----------
    code : str
        What kind: "address", "buffer", "cache", "event", "fetch", "page", "position", "program", "queue" or "shape".
    message : str
    address : int, optional
        Of the memory.
    """

    def __init__(self, code, message, address=None):
        super().__init__(message)
        self.code, self.address = code, address


class MachineError(Exception):
    """A `Fault`, and where in a program it was.

    Members
    -------
    code, address
        As of the fault.
    instruction : int
        Number in the program.
    layer, position : int
    """

    def __init__(self, fault, *, instruction, text, layer, position):
        super().__init__(f"instruction {text}, layer {layer}, position {position}: {fault}")
        self.code, self.address = fault.code, fault.address
        self.instruction, self.layer, self.position = instruction, layer, position
