"""From names to footage: the clips at a source, and which of them are LR frames of which others."""
