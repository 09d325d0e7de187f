"""Heads: from features to class scores.

Contract: a head is built as `Name(in_channels, in_strides, channels, num_classes, ...)` and called
as `head(maps, x)`. `maps` are all maps of the neck, finest first; `x` is the output of the context
slots, (B, C, h, w), and takes the place of the deepest map. The head returns logits (B, K, h', w')
at any resolution below that of the image. `in_channels` and `in_strides` are those of `maps`,
`channels` is the width of x.
"""
