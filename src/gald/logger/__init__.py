"""Where curves and scores go: metrics.csv, wandb, TensorBoard, MLflow."""
