"""The HTTP front-end: one codec per dialect, the handlers, and the process that serves them."""
