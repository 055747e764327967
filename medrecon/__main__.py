"""Run the command line as ``python -m medrecon``."""

from medrecon.cli import main

if __name__ == "__main__":
    main()
