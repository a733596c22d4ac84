"""The group systolic array, from one group to the chain of them, and what feeds it."""

from edgeaccel.systolic.array import GroupArray
from edgeaccel.systolic.commands import CommandChain
from edgeaccel.systolic.engine import MatrixEngine
from edgeaccel.systolic.feed import ActivationFeed
from edgeaccel.systolic.group import Group

__all__ = ["ActivationFeed", "CommandChain", "Group", "GroupArray", "MatrixEngine"]
