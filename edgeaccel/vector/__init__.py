"""Vector unit: what is done to vectors beside the array, `lanes` elements a cycle, in FP32."""

from edgeaccel.vector.choice import Function
from edgeaccel.vector.elementwise import (
    Rectifier,
    VectorAdder,
    VectorMultiplier,
    VectorScaler,
)
from edgeaccel.vector.function import (
    GELU,
    Exponential,
    Exponential2,
    FunctionUnit,
    Reciprocal,
    ReciprocalSquareRoot,
    Sigmoid,
    SiLU,
    Tanh,
    TanhGELU,
)
from edgeaccel.vector.norm import Norm, NormApplier, NormStatistics
from edgeaccel.vector.reduce import VectorMaximum, VectorSum
from edgeaccel.vector.topk import TopK

__all__ = [
    "GELU",
    "Exponential",
    "Exponential2",
    "Function",
    "FunctionUnit",
    "Norm",
    "NormApplier",
    "NormStatistics",
    "Reciprocal",
    "ReciprocalSquareRoot",
    "Rectifier",
    "SiLU",
    "Sigmoid",
    "Tanh",
    "TanhGELU",
    "TopK",
    "VectorAdder",
    "VectorMaximum",
    "VectorMultiplier",
    "VectorScaler",
    "VectorSum",
]
