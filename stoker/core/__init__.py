"""Pure shared code: states, setup keys, references, messages, errors. No I/O, no clock, no environment."""
