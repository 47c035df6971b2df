"""What is left behind of an import for those who ask years later: receipts, and the audit log."""
