"""Reading videos and folders of frames: the one way from a file to RGB frames."""
