"""Config sections become the parts of a run; the only room that sees a whole config."""
