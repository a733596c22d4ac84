"""What runs an image: devices, all with the same interface, and what makes text with them."""

from edgeaccel.runtime.device import Batch, Device, DeviceError, Stop, StopReason
from edgeaccel.runtime.generate import generate
from edgeaccel.runtime.golden import GoldenDevice
from edgeaccel.runtime.sampler import Sampler

__all__ = ["Batch", "Device", "DeviceError", "GoldenDevice", "Sampler", "Stop", "StopReason", "generate"]
