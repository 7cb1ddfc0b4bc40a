"""Identity against prompt alignment over the adapter's strength, untuned and tuned."""
