"""The built-in job server: an ordinary MCP server that only its CLI command knows."""
