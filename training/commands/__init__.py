"""The commands of `lightnets`, one module each."""
