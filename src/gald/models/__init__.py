"""Everything around the two slots: backbone, neck, heads, and the segmentor that wires them."""
