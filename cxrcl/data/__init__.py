"""Manifests, texts, images and the order in which they come. Knows neither models nor processes."""
