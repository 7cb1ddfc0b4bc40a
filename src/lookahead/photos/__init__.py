"""Own photos: folders of people's pictures, whatever else lies in them, read into a dataset like that of `generate`."""
