"""Vector unit: what is done to vectors beside the array, `lanes` elements a cycle, in FP32."""

from edgeaccel.vector.elementwise import (
    Rectifier,
    VectorAdder,
    VectorMultiplier,
    VectorScaler,
)
from edgeaccel.vector.norm import Norm, NormApplier, NormStatistics
from edgeaccel.vector.reduce import VectorMaximum, VectorSum
from edgeaccel.vector.topk import TopK

__all__ = [
    "Norm",
    "NormApplier",
    "NormStatistics",
    "Rectifier",
    "TopK",
    "VectorAdder",
    "VectorMaximum",
    "VectorMultiplier",
    "VectorScaler",
    "VectorSum",
]
