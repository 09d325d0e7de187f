"""Metrics: each turns one image into a vector of integers, and sums of vectors into scores.

Integers add up to the same total in any order and for any number of processes, and the vector of
every image can be stored (`gald.metrics.images`). `gald.metrics.base` defines the interface of all
metrics. Void pixels (255) are not scored. A class with no pixels to score is nan and is left out of
means. The table lists the metrics of conf/metrics/all.yaml; a new metric needs no row here.

| name | file | keys |
|---|---|---|
| `confusion` | confusion.py | `miou`, `accuracy`, `mean_accuracy`, `fw_iou`, `classes_present`, |
| | | `iou/<class>`, `accuracy/<class>`; with categories `category_miou`, |
| | | `category_iou/<category>` |
| `boundary_iou` | boundary_iou.py | `boundary_iou/<width>`, `boundary_iou/<width>/<class>` |
| `boundary_f` | boundary_f.py | `boundary_f/<width>`, `boundary_f/<width>/<class>` |
| `boundary_f_authors` | boundary_f.py | `boundary_f_authors/<width>`, and by `/<class>` |
| `trimap` | trimap.py | `trimap/<px>` for 1 to 40, `trimap/beyond` |
| `size` | size.py | `size/recall/<bin>`, `size/iou/<bin>`, `size/objects/<bin>` |
| `thin` | thin.py | `thin/miou`, `thin/classes`, `thin/width/<class>` |
| `ece` | calibration.py | `ece` |

A width of 1 or more is in pixels (`3`); a width below 1 is a share of the image's diagonal
(`0.02`). A size bin is named after its upper edge, such as `to_0.1%` of the image's pixels. Scores
are stored as fractions from 0 to 1.
"""
