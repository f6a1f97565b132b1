"""The explorer: run folders in a browser. Started by `interp-unlearn explore RUNS_DIR`."""
