"""What a valid config is: sections (the skeleton) and nodes (classes by `_target_`)."""
