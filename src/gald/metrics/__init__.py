"""Metrics: each turns one image into a vector of whole numbers, and sums of vectors into scores.

Whole numbers add up to the same total in any order and under any number of processes, and the
vector of every image can be kept (`gald.metrics.images`). `gald.metrics.base` says what all have in
common. Void (255) counts nowhere; a class without anything to judge is nan and left out of means.

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

A width is in pixels from 1 on (`3`), and below 1 a share of the image's diagonal (`0.02`). A size
bin is named after its upper edge, `to_0.1%` of the image's pixels. Scores are shares from 0 to 1.
"""
