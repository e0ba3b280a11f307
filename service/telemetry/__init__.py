"""What is told of every request: metrics, drift, traces, logs."""
