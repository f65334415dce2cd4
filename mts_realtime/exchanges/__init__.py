"""Exchange adapters: one module an exchange, and nothing else knows its wire format."""
