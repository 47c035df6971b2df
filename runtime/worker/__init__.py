"""The worker: one confined process per loaded model, and the front-end's side of it."""
