"""The guest as a Jupyter kernel for bash: messages, executions, shells."""
