"""From video files to training samples: decoding, degradation, and the sample shards on storage."""
