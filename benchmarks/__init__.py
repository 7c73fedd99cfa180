"""Benchmarks: programs that measure, never tests that judge. See README.md."""
