"""Who is connected to this node, as stored facts; and devices of nodes that are gone."""
