"""The serving side: the engine, its sandboxed worker, the HTTP front-end and the umbrella CLI."""
