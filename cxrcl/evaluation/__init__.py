"""Figures of trained models. Knows protocols only: neither data files nor models nor objectives by name."""
