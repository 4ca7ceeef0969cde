"""Redis's and Valkey's own test suites, and what of them passes."""
