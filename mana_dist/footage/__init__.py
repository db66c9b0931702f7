"""What a name stands for: the clips that lie there, and which frames are the LR frames of which."""
