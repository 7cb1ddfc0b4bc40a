"""Features: everything constant that training needs of a picture, encoded once and read back row by row."""
