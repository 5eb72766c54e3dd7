"""Lukewarm: a local, offline SageMaker endpoint emulator with real cold starts and an exact bill."""
