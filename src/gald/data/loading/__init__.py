"""Caches, samplers and loaders: from samples to batches."""
