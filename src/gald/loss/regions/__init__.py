"""Losses that compare regions of an image or a batch, instead of single pixels.

Such a loss is a ratio of sums or depends on a ranking, so the losses of two groups of pixels do not
sum to that of both. Over an `image`, each image is a group: the loss is the mean of the images'
losses, weighted by their labelled pixels, and is the same for any number of devices and accumulated
batches. Over a `batch`, all images of a forward pass are one group; `DeepSupervision` refuses this
if an optimizer step has several forward passes.
"""
