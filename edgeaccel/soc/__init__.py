"""A whole machine: sequencer, registers, and the units on either side of the array."""
