"""Losses: each maps `(logits, mask)` to a scalar and ignores void pixels (255)."""
