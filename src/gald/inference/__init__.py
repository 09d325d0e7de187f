"""From a model and an image to class scores at the image's size.

One mode a file. A mode says which parts of which sizes of the image go through the network and
where their scores belong (`ScoredView`); `base.py` spreads them over the image, a tile at a time.
"""

from gald.inference.base import Inference, LabelMap, ScoredView
from gald.inference.multi_scale import MultiScaleFlip
from gald.inference.slide import Slide
from gald.inference.whole import FullImage

__all__ = ["FullImage", "Inference", "LabelMap", "MultiScaleFlip", "ScoredView", "Slide"]
