"""Workloads that prove who they are with what their platform gave them: they need no secret of callgate's.

``Workloads`` says which agent a token of a Kubernetes cluster, a CI system, a cloud or a SPIFFE trust domain stands
for. ``workloads`` brings the cryptography, ``workload_api`` gRPC (the extra ``spiffe``).
"""
