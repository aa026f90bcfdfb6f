"""Decides which worker runs which task, and what it must evict for it."""
