"""Lukewarm: a local, offline SageMaker endpoint emulator: real cold starts, an exact bill."""

__version__ = "0.1.0"
