"""The names of the account that the tests build: those of deploy/settings.example.env."""

from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2]
ROOT = DEPLOY.parent


def read_settings(path: Path) -> dict[str, str]:
    """Reads KEY=value lines the way deploy/pixell-envoy does."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


SETTINGS = read_settings(DEPLOY / "settings.example.env")
REGION = SETTINGS["REGION"]
