"""`stoker up`: the whole system on one machine, supervised."""
