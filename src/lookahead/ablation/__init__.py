"""What each part of the method does: variants that differ in one thing, trained alike and judged alike."""
