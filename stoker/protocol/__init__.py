"""The only code that speaks to Redis: Lua scripts, one a verb, and their wrappers."""
