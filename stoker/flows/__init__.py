"""Flows: graphs of apps. What a flow is, whether it can run, and what its run does next.

Nothing here does I/O, but for the helper process that evaluates expressions (`evaluator`).
"""
