"""The group systolic array, from one group to the chain of them."""

from edgeaccel.systolic.array import GroupArray
from edgeaccel.systolic.group import Group

__all__ = ["Group", "GroupArray"]
