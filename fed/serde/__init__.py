"""Values to bytes and back: the contract of a codec, and the codecs."""
