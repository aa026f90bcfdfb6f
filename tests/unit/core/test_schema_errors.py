import jsonschema_rs
import pytest

from stoker.core.schema_errors import MAX_VALUES, is_larger, schema_errors

TEXTS = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}}
FITS_NOT = 'is not of type "string"'


class Validator:
    """The library's, which notes whether all errors were made."""

    def __init__(self, schema=TEXTS):
        self._validator = jsonschema_rs.validator_for(schema)
        self.is_valid, self.validate = self._validator.is_valid, self._validator.validate
        self.made_all = False

    def iter_errors(self, value):
        self.made_all = True
        return self._validator.iter_errors(value)


def test_nothing_is_said_of_what_fits():
    assert schema_errors(Validator(), {"a": ["x"] * 2 * MAX_VALUES}, "input") == ""


def test_the_first_errors_are_told_and_the_others_are_counted():
    told = schema_errors(Validator(), {"a": [1] * 7}, "input")
    assert told == "; ".join(f"a.{n}: 1 {FITS_NOT}" for n in range(5)) + " (and 2 more)"


@pytest.mark.parametrize(("root", "place"), [("", "input"), ("setup", "setup")])
def test_a_value_that_is_wrong_as_a_whole_has_a_name(root, place):
    assert schema_errors(Validator({"type": "string"}), 1, "input", root) == f"{place}: 1 {FITS_NOT}"


def test_a_field_is_named_from_its_root():
    assert schema_errors(Validator(), {"a": [1]}, "input", "setup") == f"setup.a.0: 1 {FITS_NOT}"


def test_of_a_large_value_one_error_is_made_and_not_all():
    validator = Validator()
    told = schema_errors(validator, {"a": ["x", *[1] * MAX_VALUES]}, "input")
    assert told == f"a.1: 1 {FITS_NOT} (of more than {MAX_VALUES} values, only the first error is shown)"
    assert not validator.made_all


@pytest.mark.parametrize("value", [[1, 2, 3], {"a": 1, "b": [2]}, [[], [[]]]])
def test_the_values_within_a_value_are_counted_at_any_depth(value):
    assert not is_larger(value, 3)
    assert is_larger(value, 2)
    assert not is_larger("text", 0)
