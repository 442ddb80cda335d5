"""The audit trail: one record per decision and one per outcome, chained by SHA-256."""
