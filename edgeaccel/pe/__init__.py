"""Processing elements, in the order in which data goes through them.

activations -> BlockAligner -+
words -> DigitDecoder -> LanePair -> GroupDatapath -> Scaler -> Accumulator -> FP32 results
"""

from edgeaccel.pe.accumulator import Accumulator
from edgeaccel.pe.align import BlockAligner
from edgeaccel.pe.digit import DigitDecoder, FormatCode
from edgeaccel.pe.float import BF16, FP16, FP32, FloatFormat
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_convert import FloatConverter, IntToFloat
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.pe.group import GroupDatapath
from edgeaccel.pe.lane import LanePair
from edgeaccel.pe.scaled_accumulator import ScaledAccumulator
from edgeaccel.pe.scaler import Scaler

__all__ = [
    "BF16",
    "FP16",
    "FP32",
    "Accumulator",
    "BlockAligner",
    "DigitDecoder",
    "FloatAdder",
    "FloatConverter",
    "FloatFormat",
    "FloatMultiplier",
    "FormatCode",
    "GroupDatapath",
    "IntToFloat",
    "LanePair",
    "ScaledAccumulator",
    "Scaler",
]
