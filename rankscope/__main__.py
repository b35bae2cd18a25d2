"""``python -m rankscope``, for programs such as torchrun that start modules."""

from rankscope.cli import main

if __name__ == "__main__":
    main()
