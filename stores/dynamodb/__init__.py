"""Targets in DynamoDB. The only home of aiobotocore.

Reading order: `target` (what stands in a table), `connection` (requests, what their errors mean), `pace` (how fast).
"""
