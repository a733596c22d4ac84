"""Mixed-precision group systolic array accelerator for large language models, in Amaranth."""

__version__ = "0.1.0"
