"""Local distribution (LD): how much of the global context each position uses.

Contract: a module here is built as `Name(channels, ...)` and called as `ld(context, x)`. `context`
is the output of the global aggregation, `x` its input; the result has their shape.
`ld.distribution_map(context, x)` returns the map in [0, 1] that weights the context, at the same
height and width. The map has C, 1 or a divisor of C channels, each for an equal part of the feature
channels; an LD that weights K places around a position returns K channels that sum to 1. The
docstring of the method defines what 0, 1 and the sum mean. Every LD has this method except `none`,
which returns `context`.
An LD accepts the same range of inputs as a GA, or raises a ValueError that names both sizes.

A module with the class attribute `reads = "maps"` also reads the maps of the neck: its YAML is a
factory that receives `in_channels` and `in_strides`, and both calls take the maps, finest first, as
last argument.
An LD that returns x + A * (context - x) (affinity, gate, lowlevel) has no effect if the context is
x itself: with model/ga=none, and with the orders ld_ga and parallel.

One file per distribution, one YAML per option in conf/model/ld; the tests find both automatically.
Shape letters: see gald.model.ga.
"""
