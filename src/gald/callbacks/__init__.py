"""Training callbacks: checkpoints, weight averaging, progress, images for wandb."""
