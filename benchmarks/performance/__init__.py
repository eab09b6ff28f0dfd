"""What members cost in time and memory: docs/performance.md."""
