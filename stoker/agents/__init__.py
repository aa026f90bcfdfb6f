"""Agents: conversations with a language model that calls tools. Here is what the gateway and the jobs share."""
