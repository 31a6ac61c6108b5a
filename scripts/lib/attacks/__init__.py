"""The rows of scripts/attacks: every module here but `kit` adds some."""
