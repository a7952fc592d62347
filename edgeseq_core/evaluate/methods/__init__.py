"""Ways to learn from a stream, all under one protocol; `method.py` says what each of them is given."""
