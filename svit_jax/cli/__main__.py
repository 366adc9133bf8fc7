import sys

from svit_jax.cli import main

sys.exit(main())
