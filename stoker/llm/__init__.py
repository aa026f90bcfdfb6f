"""What a language model is here: an ordinary app whose input and output have the fields of the LLM contract."""
