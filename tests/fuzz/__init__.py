"""Guided fuzzing of all that reads what strangers made: `make fuzz` (CONTRIBUTING.md)."""
