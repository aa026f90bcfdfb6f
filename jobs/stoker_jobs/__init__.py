"""Background work on RQ."""
