pytest_plugins = ["tests.cloud.plugin"]
