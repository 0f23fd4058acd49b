"""Texts: reports, prompts for labels, tokens."""
