"""Inference: from a model and an image to class scores at the image's size.

There is one mode per file. A mode decides which parts of the image go through the network, at which
scales, and where their scores belong (`ScoredView`). `base.py` resizes them to the image, one tile
at a time.
"""

from gald.inference.base import Inference, LabelMap, ScoredView
from gald.inference.multi_scale import MultiScaleFlip
from gald.inference.slide import Slide
from gald.inference.whole import FullImage

__all__ = ["FullImage", "Inference", "LabelMap", "MultiScaleFlip", "ScoredView", "Slide"]
