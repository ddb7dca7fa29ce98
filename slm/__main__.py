"""`python -m slm …` is `slm …`."""

from slm.cli import main

if __name__ == "__main__":
    main()
