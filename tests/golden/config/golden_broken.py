"""Fails when it is imported."""

print("a line that is no answer")
raise SystemExit(3)
