"""`python -m hybridgen` is the command `hybridgen`."""

from hybridgen.cli import app

if __name__ == "__main__":
    app(prog_name="hybridgen")
