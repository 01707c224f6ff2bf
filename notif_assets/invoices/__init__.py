"""Invoice files to invoices, and invoices to averages."""
