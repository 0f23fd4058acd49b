"""What is optimised: one file an objective, towers and loss in one module."""
