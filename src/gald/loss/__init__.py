"""Losses: called with `(logits, mask)`, they return a scalar; void (255) counts nowhere."""
