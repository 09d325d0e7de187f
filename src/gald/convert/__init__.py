"""Conversion of other projects' checkpoints to run folders of gald."""
