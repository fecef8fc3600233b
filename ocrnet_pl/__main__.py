"""The command line without a ``train.py``: ``python -m ocrnet_pl fit --config FILE``."""

from ocrnet_pl.cli.main import main

if __name__ == "__main__":
    main()
