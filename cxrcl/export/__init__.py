"""Models that are given away: folders without pickles, cards, ONNX."""
