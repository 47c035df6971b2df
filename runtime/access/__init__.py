"""Who may use the server, and how much: API keys, roles, rate limits, TLS. Nothing here is HTTP."""
