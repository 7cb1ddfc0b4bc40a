"""Tables, figures and pages of evaluations and studies: read what `evaluation` wrote, draw and score nothing."""
