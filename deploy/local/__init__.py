"""Real servers on one machine, for the demo, the tests and `make up`.

`servers` starts Kafka and PostgreSQL, from `kafka_jars` and a wheel. `processes` is how any of them is started and
stopped, and `guard` ends those whose starter was killed. `stack` keeps them running between `make up` and `make down`.
"""
