"""Rules that all packages share: errors, table schemas, records, files, locks and pseudonyms."""
