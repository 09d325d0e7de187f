"""Global aggregation (GA): every position learns about the whole scene.

Contract: a module here is built as `Name(channels, ...)` and called as `ga(x)`; what it returns,
the `context`, has the shape of `x`. It takes any height and width from 1 on, any batch size from
1 on (in training too), float32 and autocast, contiguous and channels_last.
`model/ga=none` is torch.nn.Identity.

One file per aggregation, one YAML per choice in conf/model/ga; the tests find both by themselves.

Shape letters, here and in every module:
    B  batch size
    C  channels
    G  channel groups
    h, w  height and width of the feature map
    N  positions of the feature map, h * w
"""
