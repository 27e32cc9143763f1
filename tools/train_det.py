"""The same as `detkit train`: see detkit/cli/train.py."""

from detkit.cli.train import main

if __name__ == "__main__":
    main()
