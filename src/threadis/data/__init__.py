"""What is on disk: directory, layout, saved files, settings that were kept."""
