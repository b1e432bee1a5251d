"""`python -m migrations`: migrate the configured database to the newest revision."""

from app.core.settings import settings
from migrations import migrate

if __name__ == "__main__":
    migrate(settings().database_url)
