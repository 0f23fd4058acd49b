"""Single films: what inference.py and its page ask a model, and what they tell and draw."""

RESEARCH_ONLY = "Research use only; not for diagnosis."
