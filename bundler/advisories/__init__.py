"""What publishers took back: the signed list, made on one side and gone by on the other."""
