"""What every room uses: errors, the terminal, files that are written whole."""
