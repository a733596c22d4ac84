"""The system around the array: instruction set, sequencer, registers, top level. Nothing is here yet."""
