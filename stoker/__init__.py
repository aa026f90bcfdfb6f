"""What the parts of Stoker share: the pure core, the Redis protocol, settings and logging."""

__version__ = "0.1.0"
