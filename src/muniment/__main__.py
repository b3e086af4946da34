"""`python -m muniment` is `muni`."""

from muniment.node.main import main

if __name__ == "__main__":
    main()
