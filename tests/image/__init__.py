"""What only the built images can show: `make test-image`."""
