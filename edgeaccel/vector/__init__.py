"""Vector unit: what is done to vectors beside the array, `lanes` elements a cycle, in FP32."""

from edgeaccel.vector.choice import Function
from edgeaccel.vector.elementwise import (
    GatedProduct,
    Rectifier,
    VectorAdder,
    VectorConverter,
    VectorFunction,
    VectorMultiplier,
    VectorScaler,
)
from edgeaccel.vector.epilogue import Epilogue
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
from edgeaccel.vector.path import ResultPath
from edgeaccel.vector.quantise import CodeMaker, KVQuantiser, ScaleFinder
from edgeaccel.vector.reduce import VectorMaximum, VectorSum
from edgeaccel.vector.rotary import Rotary
from edgeaccel.vector.softmax import OnlineSoftmax, Softmax
from edgeaccel.vector.topk import TopK

__all__ = [
    "GELU",
    "CodeMaker",
    "Epilogue",
    "Exponential",
    "Exponential2",
    "Function",
    "FunctionUnit",
    "GatedProduct",
    "KVQuantiser",
    "Norm",
    "NormApplier",
    "NormStatistics",
    "OnlineSoftmax",
    "Reciprocal",
    "ReciprocalSquareRoot",
    "Rectifier",
    "ResultPath",
    "Rotary",
    "ScaleFinder",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "TanhGELU",
    "TopK",
    "VectorAdder",
    "VectorConverter",
    "VectorFunction",
    "VectorMaximum",
    "VectorMultiplier",
    "VectorScaler",
    "VectorSum",
]
