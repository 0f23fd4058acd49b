"""Encoders and heads. Nothing here knows data files, processes or devices."""
