"""What a checkpoint holds, and the one place that reads and writes it."""
