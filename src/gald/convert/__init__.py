"""Checkpoints of other projects as run folders of this one."""
