"""What the Dockerfile runs; each file stands alone."""
