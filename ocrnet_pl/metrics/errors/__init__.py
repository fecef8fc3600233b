"""Where a network errs: its errors by kind, what each costs, and the images in which it errs most."""
