"""Local distribution (LD): how much of the global context each position takes.

Contract: a module here is built as `Name(channels, ...)` and called as `ld(context, x)`, with
`context` what the global aggregation made and `x` what it was given; what it returns has their
shape. `ld.distribution_map(context, x)` returns the map in [0, 1] that decides, at the same height
and width, with C, 1 or a divisor of C channels, each deciding for its share of the channels; or,
where an LD weighs K places around a position, K channels that sum to 1. Its docstring says what 0,
1 and the sum mean. Every LD has it but `none`, which returns `context`.
It takes the same range of inputs as an aggregation, or raises a ValueError with both sizes.

A module with the class attribute `reads = "maps"` looks at the maps of the neck too: its YAML is a
factory, which gets `in_channels` and `in_strides`, and both calls get the maps, finest first, last.
One that returns x + A * (context - x) (affinity, gate, lowlevel) does nothing where the context is
x itself: with model/ga=none, and with the orders ld_ga and parallel.

One file per distribution, one YAML per choice in conf/model/ld; the tests find both by themselves.
Shape letters: see gald.model.ga.
"""
