"""Why is my number not yours: choices that papers leave open, tried one by one on a checkpoint and its data."""
