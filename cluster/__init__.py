"""From laptop to cluster: Ray cluster launcher files, the image's build steps, and a stack for one machine."""
