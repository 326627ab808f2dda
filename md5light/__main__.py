"""`python -m md5light` is `md5light`."""

from md5light.cli import main

main()
