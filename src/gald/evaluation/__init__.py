"""Evaluation of a network on a split: per-image counts, scores, and a receipt of hashes."""
