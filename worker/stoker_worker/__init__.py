"""The daemon on a machine that runs apps."""
