"""The command line: ``python train.py fit --config configs/quickstart.yaml``."""

from ocrnet_pl.cli.main import main

if __name__ == "__main__":
    main()
