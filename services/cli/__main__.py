"""``python -m edgeseq_services.cli``."""

import sys

from .app import main

sys.exit(main())
