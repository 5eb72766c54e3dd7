"""The model: its data, its training, and the container that serves it. Imports no `emulator`."""
