"""What `make bench` measures: one module per figure, each beside a public tool in the same run."""
