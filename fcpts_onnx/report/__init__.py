"""SHOW: results on a terminal, as tables and as pages, and how learning goes on."""
