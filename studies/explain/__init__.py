"""Which mAP is this: the rules by which another program computed its figure of boxes."""
