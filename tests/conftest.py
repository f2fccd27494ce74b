import signal

pytest_plugins = ["tests.cloud.plugin"]

# A shell's background job ignores interrupts, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
