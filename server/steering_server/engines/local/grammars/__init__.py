"""Grammars that constrain generated text: compiled by llguidance, within limits, and matched token by token."""
