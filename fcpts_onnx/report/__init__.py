"""SHOW: results as tables on a terminal, and how learning goes on."""
