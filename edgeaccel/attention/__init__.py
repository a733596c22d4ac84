"""Attention over a quantised KV cache, chunk by chunk."""
