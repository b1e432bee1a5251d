"""`python -m migrations [REVISION]`: migrate the configured database, to the newest revision unless told otherwise."""

import sys

from app.core import logs
from app.core.settings import settings
from migrations import migrate

if __name__ == "__main__":
    logs.configure(settings().log_format)
    migrate(settings().database_url, *sys.argv[1:2])
