"""Users and rights."""
