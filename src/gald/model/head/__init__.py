"""Heads: from features to class scores.

Contract: a head is built as `Name(in_channels, in_strides, channels, num_classes, ...)` and called
as `head(maps, x)`: all maps of the neck, finest first, and `x`, what the context slots made,
(B, C, h, w). It returns logits (B, K, h', w') at any resolution below that of the image.
"""
