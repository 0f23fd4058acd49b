"""Models that are given away: a folder without pickles, its card, files for other libraries."""
