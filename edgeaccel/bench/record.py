"""One shape for all figures."""

import json
from dataclasses import asdict, dataclass

__all__ = ["KINDS", "Record", "to_json"]

KINDS = ("simulated", "estimated", "measured", "reported")


@dataclass(frozen=True)
class Record:
    """A figure.

    Attributes
    ----------
    name : str
        Words joined by dots, from the general to the particular.
    value : float
    unit : str
        "1" for a plain ratio.
    kind : str
        "simulated" (models or emitted Verilog), "estimated" (synthesis, a calculation), "measured" (this machine's
        time or memory), or "reported" by others.
    source : str
        The command or the publication that it comes from.
    """

    name: str
    value: float
    unit: str
    kind: str
    source: str

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")


def to_json(records):
    return json.dumps([asdict(record) for record in records], indent=2) + "\n"
