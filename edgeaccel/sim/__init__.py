"""Test benches: the same items and the same stalls through Amaranth's simulator, compiled Verilog, and cocotb."""
