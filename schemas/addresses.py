"""The usual form of a mail address."""

import re
from typing import Final

_ATOM: Final = r"[\w!#$%&'*+/=^`{|}~-]+"
# What matches is one address and nothing besides (RFC 5322, 3.4.1, dot-atoms alone); others may be, too.
PLAIN_ADDRESS: Final = re.compile(rf"{_ATOM}(\.{_ATOM})*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", re.ASCII)
