"""Imported relatively and, as some apps do, absolutely."""

WORD = "helped"


def square(number):
    return number * number
