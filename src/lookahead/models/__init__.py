"""The networks that the method works on: the image adapter, the face recogniser, the fast child's strength."""
