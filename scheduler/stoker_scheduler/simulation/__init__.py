"""The scheduler's own decisions on a trace, in virtual time, beside simpler rules and beside bounds."""
