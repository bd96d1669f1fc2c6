"""Reading the tables that users hand in, with errors that name file, line and column."""
