"""Where a manifest comes from: one module a data set."""
