"""Global aggregation (GA): every position receives information from the whole image.

Contract: a module here is built as `Name(channels, ...)` and called as `ga(x)`. It returns the
`context`, which has the shape of `x`. It accepts any height, width and batch size of at least 1
(also in training), float32 and autocast, contiguous and channels_last.
`model/ga=none` is torch.nn.Identity.

One file per aggregation, one YAML per option in conf/model/ga; the tests find both automatically.

Shape letters, here and in every module:
    B  batch size
    C  channels
    G  channel groups
    h, w  height and width of the feature map
    N  positions of the feature map, h * w
"""
