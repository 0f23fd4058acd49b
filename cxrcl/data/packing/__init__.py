"""Packed stores and WebDataset shards: how they are made."""
