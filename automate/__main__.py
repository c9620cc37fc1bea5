"""`python -m automate`."""

from automate.main import main

if __name__ == "__main__":
    main()
