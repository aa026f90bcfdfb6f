"""Shared by several apps, each of which has a link to it."""

WORD = "linked"
