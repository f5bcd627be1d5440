"""In the Python that came along: what it starts gets the machine's own libraries again."""

import os
import site
import sys
from pathlib import Path

os.environ.pop("LD_LIBRARY_PATH", None)
# Whoever starts this Python again, multiprocessing for one, does it in the same way.
sys.executable = str(Path(sys.executable).with_name("python3"))
# Debian's looks elsewhere.
site.addsitedir(str(Path(__file__).with_name("site-packages")))
