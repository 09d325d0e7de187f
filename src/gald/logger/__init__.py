"""Loggers for curves and scores: metrics.csv, wandb, TensorBoard, MLflow."""
