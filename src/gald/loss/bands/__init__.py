"""Losses of low-resolution logits against a full-size mask, in bands of rows."""
