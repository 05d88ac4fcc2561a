"""Networks whose training knows that they will be computed in integers."""
