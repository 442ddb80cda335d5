"""intercept-py: a policy-enforcing proxy between an MCP client and its upstream server.

The package re-exports nothing: the command line is the public surface, `intercept_py.policy` and
`intercept_py.state` are importable seams for tools that read policies or count with them.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
