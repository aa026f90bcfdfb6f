"""Faults at random under a load: `make chaos TASKS=5000 SEED=1`."""
