"""The same as `detkit train-cls`: see detkit/cli/train_cls.py."""

from detkit.cli.train_cls import main

if __name__ == "__main__":
    main()
