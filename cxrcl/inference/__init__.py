"""Single images: what is asked of a model, what it answers, and how that is shown."""
