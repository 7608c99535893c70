"""The demo: a scripted assistant does a real job in a sandbox, over REST, and shows each step."""
