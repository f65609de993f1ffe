"""What people and CI systems read: text, tables, progress, log lines."""
