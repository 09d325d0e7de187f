"""Probe: heads of GA x LD trained on the features of a frozen backbone, a cell in 10 to 30 seconds.

The maps of the backbone are computed once for each image and kept in a file. A cell trains
everything behind the backbone on them: neck, reduce, GA, LD, head. Its folder has the files of a
run, so `gald table`, `gald compare` and `gald report` read it.

A probe screens: a network that trains as a whole can differ, so what a probe finds is confirmed by
`gald train`.
"""
