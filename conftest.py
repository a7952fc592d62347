"""Fixtures that every test may use; brokers start only for the tests that ask for one."""

pytest_plugins = ["tests.brokers"]
