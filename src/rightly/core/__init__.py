"""What every room may use: words, errors, checks, the registry, seeding and the only caller of autograd."""
