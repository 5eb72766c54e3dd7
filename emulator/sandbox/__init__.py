"""Execution environments as operating-system processes, and the protocol their backends share."""
