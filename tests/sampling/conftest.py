"""The portraits of the pipeline's tests."""

from tests.pipeline.conftest import photos, portraits  # noqa: F401  (fixtures)
