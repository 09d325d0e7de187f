"""The network: backbone, neck, GA and LD slots, heads, and the segmentor that connects them."""
