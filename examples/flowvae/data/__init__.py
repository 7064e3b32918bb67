"""Sequences of transformed images, and the data sets they start from."""
