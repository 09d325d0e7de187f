"""The network: backbone, neck, the slots `ga` and `ld`, heads, and what wires them."""
