"""Host networks of other libraries, for `model=plugged`.

Contract: a host is built as `Name(..., num_classes)` and called with a normalised image
(B, 3, H, W). It returns logits (B, K, h, w) at any fixed stride, a sequence that starts with them,
or a mapping with them as `logits` or `out` and those of an auxiliary head as `aux`. It may refuse
sizes that are not multiples of a number; `gald.model.plugged.Plugged` finds that out.

Attributes that a host may have:
    network  the network inside it, which has the names of the places; else the host itself
    at  the place of GA and LD if model.at is null
    mean, std  of the images that its weights were trained on, in [0, 1]; else those of ImageNet
    name  for messages
    random  whether it starts from random weights

A network of your own is a class that takes `num_classes`: model/host=own with its dotted path as
`model.host._target_`.
"""
