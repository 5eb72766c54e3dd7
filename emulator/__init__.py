"""Lukewarm: a local, offline SageMaker endpoint emulator: real cold starts, an exact bill."""
