"""The audit trail (PS3.15 A.5): facts noted where they happen, made into messages, chained, and told to receivers."""
