"""Training samples: degradation, sample shards on storage, their order, and the feed of batches."""
