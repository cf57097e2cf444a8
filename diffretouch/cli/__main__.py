"""`python -m diffretouch.cli`, also below `accelerate launch`."""

from . import main

if __name__ == "__main__":
    main()
