"""`python -m lookahead.cli`."""

from lookahead.cli import main

main()
