"""Every way in: command line today; HTTP, MCP and the web page stand on the same pipeline."""
